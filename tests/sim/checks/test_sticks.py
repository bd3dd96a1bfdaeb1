"""A simulated stick really has the fault that it claims."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bundles.medium import PART_FILE, Medium
from bundles.oci.layout import Layout
from signing.errors import ApplianceError, DamagedError
from tests.sim.sticks import SimStick, plugged, spread

DATA = b"what lies on the stick"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "stick"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / "a").write_bytes(DATA)
    return root


def read(stick: Medium, path: str = "blobs/a") -> bytes | None:
    return stick.read(path, 100)


def test_without_faults_it_is_a_medium(folder: Path) -> None:
    stick = SimStick(folder)
    assert read(stick) == DATA
    assert stick.write("blobs/b", b"new")
    assert not stick.write("blobs/b", b"new")
    assert stick.list("blobs") == ("a", "b")
    assert stick.opened == ["blobs/a", "blobs/b"]


def test_one_bit_reads_wrong_and_the_file_is_untouched(folder: Path) -> None:
    stick = SimStick(folder)
    stick.flip_bit("blobs/a", 9)
    assert read(stick) == DATA[:1] + bytes([DATA[1] ^ 2]) + DATA[2:]
    assert (folder / "blobs/a").read_bytes() == DATA


def test_truncated_file_ends_early_and_has_the_smaller_size(folder: Path) -> None:
    stick = SimStick(folder)
    stick.truncate("blobs/a", 4)
    descriptor = stick.open("blobs/a")
    assert os.fstat(descriptor).st_size == 4
    assert os.read(descriptor, 100) == DATA[:4]
    os.close(descriptor)


def test_second_read_differs_and_stays_so(folder: Path) -> None:
    stick = SimStick(folder)
    stick.give("blobs/a", None, b"other")
    assert [read(stick) for _ in range(3)] == [DATA, b"other", b"other"]


def test_unreadable_file_opens_and_fails_with_eio(folder: Path) -> None:
    stick = SimStick(folder)
    stick.fail_to_read("blobs/a")
    descriptor = stick.open("blobs/a")
    with pytest.raises(OSError, match="Input") as caught:
        os.pread(descriptor, 1, 0)
    assert caught.value.errno == errno.EIO
    os.close(descriptor)
    with pytest.raises(DamagedError):
        read(stick)


def test_full_stick_takes_what_fits_and_keeps_no_half_file(folder: Path) -> None:
    stick = SimStick(folder, capacity_bytes=10)
    assert stick.write("blobs/b", b"12345678")
    with pytest.raises(ApplianceError) as caught:
        stick.write("blobs/c", b"12345678")
    assert caught.value.code == "disk.full"
    assert stick.list("blobs") == ("a", "b")


def test_pulled_stick_is_gone_and_comes_back_with_half_a_file(folder: Path) -> None:
    stick = SimStick(folder, pull_after_bytes=5)
    with pytest.raises(ApplianceError) as caught:
        stick.write("blobs/b", b"12345678")
    assert caught.value.code == "write.failed"
    assert not folder.exists()
    assert read(stick) is None
    stick.plug_in()
    assert (folder / PART_FILE).read_bytes() == b"12345"
    assert stick.write("blobs/b", b"12345678")
    assert stick.list("blobs") == ("a", "b")


def test_write_protected_stick_is_read_and_not_written(folder: Path) -> None:
    stick = SimStick(folder, is_read_only=True)
    assert read(stick) == DATA
    assert not stick.write("blobs/a", DATA)
    with pytest.raises(ApplianceError) as caught:
        stick.write("new/b", b"x")
    assert caught.value.code == "write.failed"
    assert os.listdir(folder) == ["blobs"]


def test_names_that_differ_in_case_are_one(folder: Path) -> None:
    stick = SimStick(folder, folds_case=True)
    assert read(stick, "BLOBS/A") == DATA
    stick.write("Blobs/A", b"over it")
    assert stick.list("blobs") == ("a",)
    assert read(stick) == b"over it"


def test_two_sticks_share_the_blobs_and_each_has_the_small_files(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "blobs" / "sha256").mkdir(parents=True)
    for name in "abc":
        (bundle / "blobs" / "sha256" / name).write_text(name)
    (bundle / "oci-layout").write_text("{}")
    spread(bundle, tmp_path / "one", tmp_path / "two")
    assert [Medium(tmp_path / name).list("blobs/sha256") for name in ("one", "two")] == [("a", "c"), ("b",)]
    assert (tmp_path / "two" / "oci-layout").read_text() == "{}"


def test_plugged_in_it_is_what_a_layout_at_its_folder_reads(folder: Path, tmp_path: Path) -> None:
    stick = SimStick(folder)
    with stick.plugged():
        assert Layout(folder).medium is stick
        assert Layout(tmp_path).medium is not stick
    assert Layout(folder).medium is not stick


def test_yanked_stick_reads_nothing_and_its_folders_look_empty(folder: Path) -> None:
    stick = SimStick(folder, yank_after_opens=1)
    assert read(stick) == DATA
    with pytest.raises(DamagedError) as caught:
        read(stick)
    assert (caught.value.code, stick.list("blobs")) == ("medium.read-failed", ())
    stick.replug()
    assert (read(stick), stick.list("blobs")) == (DATA, ("a",))


def test_stick_that_was_written_again_has_no_fault(folder: Path) -> None:
    stick = SimStick(folder)
    stick.flip_bit("blobs/a")
    stick.fail_to_read("blobs/a")
    stick.heal()
    assert read(stick) == DATA


def test_several_sticks_are_plugged_at_the_same_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = SimStick(folder), SimStick(tmp_path / "other")
    with plugged(one, two):
        assert Layout(folder).medium is one
        assert Layout(tmp_path / "other").medium is two
        assert Layout(tmp_path).medium not in (one, two)
