"""T112: files of a person among the blobs of an old bundle, so that replacing that bundle deletes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundles.stick.media import by_newest, open_media
from bundles.stick.writing.writer import WriteChoice, write_sticks
from signing.floors import Floors
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.toy import NOW, build_toy

ROW = row(112)
NAMES = ["blobs/sha256/thesis.odt", "blobs/photos/1.jpg", "targets/notes.txt", "targets/bundles/toy/1.0.0/notes"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A stick with another bundle, and files of a person beside it."""
    _, bundle = build_toy(tmp_path / "other", "0.9.0")
    shutil.copytree(bundle, tmp_path / "old")
    (tmp_path / "old" / "thesis.odt").write_bytes(b"years of work")
    return tmp_path / "old"


def replace(stick: Stick, old: Path) -> None:
    media = open_media([stick.path], by_newest(stick.root, Floors(), NOW))
    write_sticks(media, [old], WriteChoice(may_remove=lambda *_: True))


def plant(old: Path, name: str) -> Path:
    path = old / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"years of work")
    return path


def test_unattacked_the_old_bundle_is_replaced_and_files_beside_it_stay(stick: Stick, old: Path) -> None:
    replace(stick, old)
    assert (old / "thesis.odt").read_bytes() == b"years of work"
    assert {path.name for path in (old / "blobs/sha256").iterdir()} == {
        chunk.sha256 for chunk in stick.open().value.blobs
    }


@pytest.mark.parametrize("name", NAMES)
def test_attacked_what_has_no_name_of_the_format_stays_and_the_stick_is_refused(
    stick: Stick, old: Path, name: str
) -> None:
    path = plant(old, name)
    refused(ROW, lambda: replace(stick, old), "layout.unlisted", name)
    assert path.read_bytes() == b"years of work"


def test_unguarded_a_persons_file_is_deleted(stick: Stick, old: Path) -> None:
    path = plant(old, NAMES[0])
    with guard_off(ROW.guard, tuple):
        replace(stick, old)
    assert not path.exists()
