"""T108: a stick of a revoked bundle beside a stick that knows of the revocation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundles.stick.media import by_newest, open_media
from signing.floors import Floors
from tests.attacks.harness import Stick, command, guard_off, refused, row
from tests.toy import NOW

ROW = row(108)


@pytest.fixture
def newer(stick: Stick, tmp_path: Path) -> Stick:
    """A second stick of the bundle, which will get the metadata of a later day."""
    return Stick(Path(shutil.copytree(stick.path, tmp_path / "newer")), stick.repository, stick.root_file)


def judge(stick: Stick, *paths: Path) -> list[str]:
    media = open_media(paths, by_newest(stick.root, Floors(), NOW))
    return [found.evidence.status for found in media.bundles]


def revoke(stick: Stick, newer: Stick) -> None:
    """Publish the revocation; only the newer stick has it, and it holds another bundle."""
    before = {path.name: path.read_bytes() for path in (stick.path / "metadata").iterdir()}
    newer.publish(status="revoked")
    for path in (stick.path / "metadata").iterdir():
        path.unlink()
    for name, data in before.items():
        (stick.path / "metadata" / name).write_bytes(data)


def test_unattacked_two_sticks_of_different_days_are_judged_by_the_newer(stick: Stick, newer: Stick) -> None:
    newer.publish()
    assert judge(stick, stick.path, newer.path) == ["current"]


@pytest.mark.parametrize("order", [0, 1])
def test_attacked_the_older_stick_is_judged_by_the_newer_one(stick: Stick, newer: Stick, order: int) -> None:
    revoke(stick, newer)
    assert judge(stick, stick.path) == ["current"]  # alone, nobody can know
    paths = (stick.path, newer.path) if order == 0 else (newer.path, stick.path)
    refused(ROW, lambda: judge(stick, *paths), "target.revoked", f"{paths[0]}: bundles/toy/1.0.0/manifest.json")
    assert command("verify", *paths, "--trust", stick.root_file).code == 4


def test_unguarded_the_older_stick_passes(stick: Stick, newer: Stick) -> None:
    revoke(stick, newer)
    with guard_off(ROW.guard, lambda _path: lambda _name, _most: None):
        refused(
            ROW,
            lambda: judge(stick, stick.path, newer.path),
            "target.revoked",
            f"{newer.path}: bundles/toy/1.0.0/manifest.json",
        )
