"""T103: an install that pins a root by `--root`, whose fingerprints are not those on paper, or too few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_pin import compare_root
from appliance.host.trust.trust_store import read_root, write_root
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.toy import build_toy

ROW = row(103)


@pytest.fixture
def prints(stick: Stick) -> list[str]:
    """The fingerprints on paper: of all root keys."""
    return [str(one.public.fingerprint) for one in stick.repository.people.root]


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix.at(tmp_path / "host")


def install(stick: Stick, prefix: Prefix, root: Path, *prints: str) -> tuple[int, str]:
    words = [word for one in prints for word in ("--fingerprint", one)]
    done = command("install", stick.path, "--root", root, *words, "--yes", "--prefix", prefix.root)
    return done.code, done.talk


def test_unattacked_as_many_fingerprints_as_must_sign_pin_the_root(
    stick: Stick, prefix: Prefix, prints: list[str]
) -> None:
    assert compare_root(stick.root_file, prints[:2]) == stick.root
    _, talk = install(stick, prefix, stick.root_file, *prints[:2])
    assert "this install pins root version 1 on this host" in talk


def test_attacked_by_another_root(stick: Stick, prefix: Prefix, prints: list[str], tmp_path: Path) -> None:
    made, _ = build_toy(tmp_path / "other")
    refused(ROW, lambda: compare_root(made.root_file, prints), "trust.wrong-fingerprint", str(made.root_file))
    assert install(stick, prefix, made.root_file, *prints)[0] == 4
    assert not prefix.root.exists()


def test_attacked_with_fewer_fingerprints_than_must_sign(stick: Stick, prefix: Prefix, prints: list[str]) -> None:
    refused(ROW, lambda: compare_root(stick.root_file, prints[:1]), "trust.too-few-fingerprints", str(stick.root_file))
    assert install(stick, prefix, stick.root_file, prints[0], prints[0])[0] == 4
    assert not prefix.root.exists()


def test_attacked_on_a_host_that_has_pinned_another_root(
    stick: Stick, prefix: Prefix, prints: list[str], tmp_path: Path
) -> None:
    """Right fingerprints do not replace a pinned root: it must cover the bundle, too."""
    made, _ = build_toy(tmp_path / "other")
    prefix.create()
    write_root(prefix, made.root_file.read_bytes())
    assert install(stick, prefix, stick.root_file, *prints)[0] == 4
    assert read_root(prefix) == made.root_file.read_bytes()


def test_unguarded_any_root_would_be_taken_as_compared(
    stick: Stick, prefix: Prefix, prints: list[str], tmp_path: Path
) -> None:
    with guard_off(ROW.guard, lambda path, _: path.read_bytes()):
        _, talk = install(stick, prefix, stick.root_file, "0" * 64)
    assert "this install pins root version 1 on this host" in talk
