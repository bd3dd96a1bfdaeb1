"""Only what the kernel counted as read from the device is called so; the control is a file system in memory."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bundles.chunks.chunk import Chunk
from bundles.oci.layout import Layout
from bundles.progress import ignore
from bundles.stick.writing.read_back import ReadBack, device_bytes, make_durable, read_back
from signing.digest import sha256
from signing.errors import ApplianceError
from tests.bundles.stick.disks import mounted_disk

SIZES = (0, 1, 1000, 4096, 4097, 3 << 20)


def put(folder: Path) -> dict[str, Chunk]:
    files = {}
    for number, size in enumerate(SIZES):
        data = bytes([number + 1]) * size
        (folder / f"{number}").write_bytes(data)
        files[f"{number}"] = Chunk(sha256(data), size)
    return files


def back(folder: Path, files: dict[str, Chunk]) -> ReadBack:
    return read_back(Layout(folder), files, ignore)


def test_what_comes_from_a_device_is_proven(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        assert back(disk, put(disk)) == ReadBack({}, sum(SIZES), True)


def test_what_lies_in_memory_is_compared_and_not_proven() -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        assert back(Path(folder), put(Path(folder))) == ReadBack({}, sum(SIZES), False)


def test_a_file_that_something_else_has_mapped_is_not_proven(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        files = put(disk)
        with (disk / "5").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert sum(mapped[::4096])
            assert back(disk, files) == ReadBack({}, sum(SIZES), False)
        assert back(disk, files).is_proven


def test_one_file_that_came_from_memory_is_enough_to_claim_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(tmp_path)
    total = 0

    def counted() -> int:
        return total

    def hashed(descriptor: int, start: int, size: int) -> str:
        nonlocal total
        total += size if size != 4097 else 4096
        return sha256(os.pread(descriptor, size, start))

    monkeypatch.setattr("bundles.stick.writing.read_back.device_bytes", counted)
    monkeypatch.setattr("bundles.stick.writing.read_back.hash_range", hashed)
    monkeypatch.setattr("bundles.parallel._count", lambda: 1)
    assert not back(tmp_path, files).is_proven
    assert back(tmp_path, {path: chunk for path, chunk in files.items() if chunk.size != 4097}).is_proven


def test_without_the_kernels_counter_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundles.stick.writing.read_back._COUNTERS", str(tmp_path / "none"))
    assert device_bytes() is None
    (tmp_path / "io").write_bytes(b"rchar: 1\n")
    monkeypatch.setattr("bundles.stick.writing.read_back._COUNTERS", str(tmp_path / "io"))
    assert device_bytes() is None
    assert not back(tmp_path, put(tmp_path)).is_proven


@pytest.mark.parametrize("change", ["other bytes", "longer", "shorter", "gone"])
def test_a_file_that_is_not_given_back_is_named(tmp_path: Path, change: str) -> None:
    files = put(tmp_path)
    data = {"other bytes": bytes(1000), "longer": b"\3" * 1001, "shorter": b"\3" * 999}.get(change)
    (tmp_path / "2").unlink()
    if data is not None:
        (tmp_path / "2").write_bytes(data)
    assert set(back(tmp_path, files).differing) == {"2"}


def test_the_first_error_of_a_sync_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call would answer 0, as the kernel does."""
    calls: list[Path] = []

    def sync(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", sync)
    with pytest.raises(ApplianceError) as caught:
        back(tmp_path, put(tmp_path))
    assert (caught.value.code, len(calls)) == ("write.failed", 1)
    assert "not certain" in caught.value.hint


def test_a_full_disk_at_a_sync_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", sync)
    with pytest.raises(ApplianceError) as caught:
        make_durable(tmp_path)
    assert caught.value.code == "disk.full"
