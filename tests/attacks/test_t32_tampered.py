"""T32: a file was changed, on the stick or where it was copied to."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.install.importer import import_files
from appliance.host.layout.prefix import Prefix
from bundles.chunks.check import check_file
from bundles.contents.contents import FORMAT_1_KINDS, File
from bundles.progress import ignore
from tests.attacks.harness import AGREES, Stick, guard_off, refused, row

ROW = row(32)


def first(stick: Stick, kind: str) -> File:
    return stick.open().value.contents.of_kind(kind)[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def copied(stick: Stick, folder: Path) -> tuple[Prefix, Path]:
    """The stick's files on a host."""
    prefix = Prefix.at(folder / "host")
    prefix.create()
    bundle = stick.open().value
    release = prefix.release_path(bundle.contents.version, bundle.manifest)
    release.mkdir()
    import_files(prefix, stick.layout, release, bundle, ignore)
    return prefix, release


def test_unattacked_files_pass_on_the_stick_and_on_the_host(stick: Stick, tmp_path: Path) -> None:
    stick.verify()
    _, release = copied(stick, tmp_path)
    for kind in ("wheel", "playbook", "config"):
        file = first(stick, kind)
        check_file(file, release / file.path)


@pytest.mark.parametrize("kind", FORMAT_1_KINDS)
def test_attacked_on_the_stick(stick: Stick, kind: str) -> None:
    file = first(stick, kind)
    flip(stick.blob(file.chunks[-1].sha256))
    refused(ROW, stick.verify, "contents.file-changed", file.path)
    assert stick.command().code == 3


@pytest.mark.parametrize("kind", FORMAT_1_KINDS)
def test_attacked_while_it_is_copied(stick: Stick, tmp_path: Path, kind: str) -> None:
    file = first(stick, kind)
    flip(stick.blob(file.chunks[-1].sha256))
    refused(ROW, lambda: copied(stick, tmp_path), "contents.file-changed", file.path)
    name = Path(file.path).name
    assert not list((tmp_path / "host").rglob(name))


@pytest.mark.parametrize("kind", ["wheel", "os-package", "playbook", "tool", "config"])
def test_attacked_on_the_host(stick: Stick, tmp_path: Path, kind: str) -> None:
    _, release = copied(stick, tmp_path)
    file = first(stick, kind)
    flip(release / file.path)
    refused(ROW, lambda: check_file(file, release / file.path), "contents.file-changed", file.path)


def test_unguarded_changed_bytes_pass(stick: Stick, tmp_path: Path) -> None:
    _, release = copied(stick, tmp_path)
    file = first(stick, "playbook")
    flip(release / file.path)
    flip(stick.blob(file.chunks[-1].sha256))
    with guard_off(ROW.guard, lambda *_: AGREES):
        check_file(file, release / file.path)
        stick.verify()
