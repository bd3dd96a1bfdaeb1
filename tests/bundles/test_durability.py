"""What the disk could not keep is an error; a kernel that cannot wait is none."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import durability
from bundles.durability import forget_cached, start_writing, start_writing_range, wait_for_range


def test_range_of_a_file_is_started_and_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(os.urandom(3 << 20))
        file.flush()
        start_writing(file.fileno())
        start_writing_range(file.fileno(), 1 << 20, 1 << 20)
        wait_for_range(file.fileno(), 1 << 20, 1 << 20)


@pytest.mark.parametrize(("number", "is_error"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.ENOSYS, False)])
def test_only_what_the_disk_could_not_keep_is_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int, is_error: bool
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durability, "_call", fails)
    start_writing_range(0, 0, 1)
    if is_error:
        with pytest.raises(OSError, match=os.strerror(number)):
            wait_for_range(0, 0, 1)
    else:
        wait_for_range(0, 0, 1)


def test_wait_on_what_is_no_file_is_none(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        wait_for_range(writer, 0, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_file_is_durable_before_memory_forgets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda _: order.append("fsync"))
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: order.append(words[1:]))
    with (tmp_path / "a").open("wb") as file:
        forget_cached(file.fileno())
    assert order == ["fsync", (0, 0, os.POSIX_FADV_DONTNEED)]


@pytest.fixture
def aligned() -> Iterator[memoryview]:
    with mmap.mmap(-1, 4 << 20) as buffer:
        buffer[:] = random.Random(7).randbytes(4 << 20)
        with memoryview(buffer) as view:
            yield view


def written(path: Path, data: bytes | memoryview) -> bytes:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        durability.write_past_cache(descriptor, data)
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.close(descriptor)
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 4095, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 4097])
def test_bytes_that_go_past_the_cache_are_all_written(tmp_path: Path, aligned: memoryview, size: int) -> None:
    with aligned[:size] as data:
        assert written(tmp_path / "x", data) == bytes(data)
    with aligned[1 : size + 1] as data:  # not at the beginning of a page
        assert written(tmp_path / "x", data) == bytes(data)


def test_large_bytes_go_past_the_cache_in_whole_blocks_and_the_rest_does_not(
    tmp_path: Path, aligned: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, is_direct_now = os.write, list[tuple[bool, int]](), [False]

    def set_direct(_descriptor: int, *, is_direct: bool) -> bool:
        is_direct_now[0] = is_direct
        return True

    def write(descriptor: int, data: memoryview) -> int:
        calls.append((is_direct_now[0], len(data)))
        return real(descriptor, data[: 1 << 20])

    monkeypatch.setattr(durability, "_set_direct", set_direct)
    monkeypatch.setattr(os, "write", write)
    with aligned[: (2 << 20) + 5] as data:
        assert written(tmp_path / "x", data) == bytes(data)
    assert calls == [(True, 2 << 20), (True, 1 << 20), (False, 5)]


@pytest.mark.parametrize("after", [0, 1])
def test_file_system_that_writes_nothing_past_the_cache_gets_the_bytes_all_the_same(
    tmp_path: Path, aligned: memoryview, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, left, is_direct_now = os.write, [after], [False]

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > 1 and is_direct_now[0]:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, data[: 1 << 20])

    def set_direct(_descriptor: int, *, is_direct: bool) -> bool:
        is_direct_now[0] = is_direct
        return True

    monkeypatch.setattr(durability, "_set_direct", set_direct)
    monkeypatch.setattr(os, "write", write)
    with aligned[: 3 << 20] as data:
        assert written(tmp_path / "x", data) == bytes(data)
    monkeypatch.setattr(durability, "_set_direct", lambda *_, **__: False)
    with aligned[: 3 << 20] as data:
        assert written(tmp_path / "y", data) == bytes(data)


def test_full_disk_past_the_cache_is_an_error(
    tmp_path: Path, aligned: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_descriptor: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path / "x", aligned)
