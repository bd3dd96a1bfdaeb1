"""T107: a stick that was pulled out, and whose file system still shows names, or an empty folder without an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.stick import media as media_module
from bundles.stick import media_set, mounts
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_check import check_media
from bundles.stick.mounts import Mount
from signing.errors import NotTrustedError
from signing.floors import Floors
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.sets.stick_folders import deal_blobs
from tests.toy import NOW

ROW = row(107)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The entry of the first stick's device in `/sys/dev/block`."""
    monkeypatch.setattr(mounts, "BLOCK_DEVICES", tmp_path / "devices")
    for module in (media_module, media_set):
        monkeypatch.setattr(
            module, "mount_of", lambda path: Mount(1, path.name, path, "vfat", f"/dev/{path.name}", is_read_only=False)
        )
    for name in ("one", "two"):
        (tmp_path / "devices" / name).mkdir(parents=True)
    return tmp_path / "devices" / "one"


@pytest.fixture
def media(stick: Stick, tmp_path: Path, device: Path) -> OpenMedia:
    """Two sticks, opened."""
    assert device.is_dir()
    paths = deal_blobs(stick.path, stick.open().value, [tmp_path / "one", tmp_path / "two"])
    return open_media(paths, by_newest(stick.root, Floors(), NOW))


def empty(stick: Path) -> None:
    """What vfat shows of a stick that is gone."""
    for path in (stick / "blobs/sha256").iterdir():
        path.unlink()


def test_unattacked_sticks_that_stay_are_read(media: OpenMedia) -> None:
    check_media(media)


def test_attacked_a_stick_that_left_is_neither_whole_nor_damaged(
    media: OpenMedia, device: Path, tmp_path: Path
) -> None:
    device.rmdir()
    empty(tmp_path / "one")
    refused(
        ROW,
        lambda: media.source.wait_for(media.source.missing(media.select().value)),
        "stick.unplugged",
        str(tmp_path / "one"),
    )


def test_attacked_names_that_the_kernel_has_cached_are_not_read(media: OpenMedia, device: Path, tmp_path: Path) -> None:
    before = media.source.missing(media.select().value)
    device.rmdir()
    assert (before, bool(media.source.missing(media.select().value))) == ((), True)
    refused(ROW, lambda: check_media(media), "stick.unplugged", str(tmp_path / "one"))


def test_attacked_an_empty_folder_is_not_taken_for_a_prepared_one(
    media: OpenMedia, device: Path, tmp_path: Path
) -> None:
    device.rmdir()
    empty(tmp_path / "one")
    refused(ROW, lambda: check_media(media), "stick.unplugged", str(tmp_path / "one"))


def test_unguarded_the_stick_that_left_is_taken_for_a_prepared_one(
    media: OpenMedia, device: Path, tmp_path: Path
) -> None:
    device.rmdir()
    empty(tmp_path / "one")
    with guard_off(ROW.guard, False), pytest.raises(NotTrustedError):
        check_media(media)
