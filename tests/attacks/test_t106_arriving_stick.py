"""T106: a stick that arrives while an install waits, and that would be refused at its beginning."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.oci.layout import STICK_FILE, Layout
from bundles.stick.media import by_newest, open_media
from bundles.stick.media_check import check_media
from signing.errors import NotTrustedError
from signing.floors import Floors
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.sets.stick_folders import StickPerson, deal_blobs
from tests.toy import NOW

ROW = row(106)


@pytest.fixture
def sticks(stick: Stick, tmp_path: Path) -> list[Path]:
    """Two sticks that together hold the bundle."""
    return deal_blobs(stick.path, stick.open().value, [tmp_path / "one", tmp_path / "two"])


def read(stick: Stick, first: Path, second: Path) -> None:
    """Read the bundle from one stick, while somebody plugs the other one in."""
    person = StickPerson(lambda: person.points.append(second))
    check_media(open_media((first,), by_newest(stick.root, Floors(), NOW), person.waiting()))


def test_unattacked_stick_that_arrives_is_read(stick: Stick, sticks: list[Path]) -> None:
    read(stick, *sticks)


def test_attacked_by_a_planted_file(stick: Stick, sticks: list[Path]) -> None:
    (sticks[1] / "blobs/sha256/evil").write_bytes(b"x")
    refused(ROW, lambda: read(stick, *sticks), "layout.unlisted", "blobs/sha256/evil")


def test_attacked_by_metadata_of_somebody_else(stick: Stick, sticks: list[Path]) -> None:
    path = sticks[1] / "metadata/timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"keyid":"', b'"keyid":"0', 1))
    with pytest.raises(NotTrustedError) as caught:
        read(stick, *sticks)
    assert caught.value.exit_code in ROW.exit


def test_attacked_by_a_link_in_the_place_of_its_card(stick: Stick, sticks: list[Path]) -> None:
    (sticks[1] / STICK_FILE).unlink()
    (sticks[1] / STICK_FILE).symlink_to("/etc/passwd")
    refused(ROW, lambda: read(stick, *sticks), "medium.hostile", STICK_FILE)


def test_unguarded_the_planted_file_lies_beside_what_is_read(stick: Stick, sticks: list[Path]) -> None:
    (sticks[1] / "blobs/sha256/evil").write_bytes(b"x")
    with guard_off(ROW.guard, lambda path, *_: Layout(path)):
        person = StickPerson(lambda: person.points.append(sticks[1]))
        media = open_media((sticks[0],), by_newest(stick.root, Floors(), NOW), person.waiting())
        media.source.wait_for(media.source.missing(media.select().value))
    assert not media.source.missing(media.select().value)
