"""Writing a bundle to sticks that fail: it says so, keeps nothing half-made, and goes on where it stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundles.bundle import Bundle, open_bundle
from bundles.chunks.check import check_all, check_blobs
from bundles.medium import PARTS_FOLDER
from bundles.oci.layout import BLOBS, Layout, blob_path
from bundles.stick.writing.writer import write_stick
from signing.errors import ApplianceError
from signing.floors import Floors
from signing.verified import Verified
from tests.sim.sticks import SimStick, spread
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    workspace, path = build_toy(tmp_path_factory.mktemp("workspace"))
    return workspace.root_file.read_bytes(), path


@pytest.fixture
def bundle(made: tuple[bytes, Path]) -> Verified[Bundle]:
    return open_bundle(made[1], made[0], Floors(), NOW)


@pytest.fixture
def stick(tmp_path: Path) -> SimStick:
    (tmp_path / "stick").mkdir()
    return SimStick(tmp_path / "stick")


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each blob is a batch of its own, one after the other: a toy of few blobs is interrupted between two."""
    monkeypatch.setattr("bundles.stick.writing.blob_batches.WRITING_THREADS", 1)
    monkeypatch.setattr("bundles.stick.writing.blob_batches.BATCH_BLOBS", 1)


def write(made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick) -> int:
    """How many blobs had to be written."""
    with stick.plugged():
        return write_stick(Layout(made[1]), bundle, stick.root).blobs


def fail(made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        write(made, bundle, stick)
    return caught.value


def check(made: tuple[bytes, Path], stick: SimStick) -> None:
    found = open_bundle(stick.root, made[0], Floors(), NOW)
    check_all(Layout(stick.root), found)


@pytest.mark.usefixtures("one_by_one")
def test_full_stick_is_told_and_with_more_room_the_rest_is_written(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick
) -> None:
    stick.capacity_bytes = 3000
    error = fail(made, bundle, stick)
    assert (error.code, error.exit_code) == ("disk.full", 1)
    stick.capacity_bytes = None
    assert 0 < write(made, bundle, stick) < len(bundle.value.blobs)
    check(made, stick)


@pytest.mark.usefixtures("one_by_one")
def test_pulled_stick_goes_on_where_it_stopped(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick
) -> None:
    stick.pull_after_bytes = 3000
    assert fail(made, bundle, stick).code == "stick.unplugged"
    stick.plug_in()
    assert 0 < write(made, bundle, stick) < len(bundle.value.blobs)
    check(made, stick)


def test_of_a_batch_what_is_whole_when_the_stick_is_full_keeps_its_place(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick
) -> None:
    stick.capacity_bytes = sum(chunk.size for chunk in bundle.value.blobs) - 1
    assert fail(made, bundle, stick).code == "disk.full"
    held = len(list((stick.root / BLOBS / "sha256").iterdir()))
    assert 0 < held < len(bundle.value.blobs)
    assert not (stick.root / PARTS_FOLDER).exists()
    stick.capacity_bytes = None
    assert write(made, bundle, stick) == len(bundle.value.blobs) - held
    check(made, stick)


def test_write_protected_stick_is_told(made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick) -> None:
    stick.is_read_only = True
    assert "write-protected" in fail(made, bundle, stick).hint


@pytest.mark.parametrize("fault", ["flip_bit", "fail_to_read"])
def test_stick_that_does_not_keep_its_bytes_is_damaged(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick, fault: str
) -> None:
    shutil.copytree(made[1], stick.root, dirs_exist_ok=True)
    getattr(stick, fault)(blob_path(bundle.value.blobs[2].sha256))
    error = fail(made, bundle, stick)
    assert (error.code, error.exit_code) == ("stick.does-not-keep", 3)


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "BOOT/verify.pyz", "oci-layout", "index.json"])
def test_stick_that_does_not_keep_a_small_file_is_damaged(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick, path: str
) -> None:
    shutil.copytree(made[1], stick.root, dirs_exist_ok=True)
    stick.flip_bit(path)
    error = fail(made, bundle, stick)
    assert (error.code, error.exit_code) == ("stick.does-not-keep", 3)


def test_small_file_that_arrived_wrong_is_written_once_more(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick
) -> None:
    path = "metadata/timestamp.json"
    shutil.copytree(made[1], stick.root, dirs_exist_ok=True)
    right = (stick.root / path).read_bytes()
    stick.give(path, right, b"wrong", None)
    write(made, bundle, stick)
    # Before it was written, read back, before it was written again, read back, and in the check of the whole stick.
    assert stick.opened.count(path) == 5
    check(made, stick)


def test_every_name_is_durable_before_the_stick_is_read_back(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = {blob_path(chunk.sha256) for chunk in bundle.value.blobs}
    wanted = blobs | {"index.json", "metadata/timestamp.json"}
    there: list[set[str]] = []

    def sync(folder: Path) -> None:
        there.append({path for path in wanted if (folder / path).is_file()})
        stick.opened.clear()

    monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", sync)
    write(made, bundle, stick)
    # The bytes of a batch, then its names; at the end everything, before any of it is read.
    assert there == [set(), blobs, wanted]
    assert wanted <= set(stick.opened)


def test_file_system_that_cannot_keep_it_is_told(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", fails)
    assert fail(made, bundle, stick).code == "write.failed"


def test_stick_that_folds_case_holds_a_whole_bundle(
    made: tuple[bytes, Path], bundle: Verified[Bundle], stick: SimStick
) -> None:
    stick.folds_case = True
    write(made, bundle, stick)
    check(made, stick)


def test_one_of_two_sticks_lacks_blobs_and_says_which_files_they_belong_to(
    made: tuple[bytes, Path], bundle: Verified[Bundle], tmp_path: Path
) -> None:
    spread(made[1], tmp_path / "one", tmp_path / "two")
    held = [set((tmp_path / name / BLOBS / "sha256").iterdir()) for name in ("one", "two")]
    assert len(held[0]) + len(held[1]) == len(bundle.value.blobs)
    with pytest.raises(ApplianceError) as caught:
        check_blobs(Layout(tmp_path / "one"), bundle.value)
    assert {error.code for error in (caught.value, *caught.value.others)} == {"blob.missing"}
