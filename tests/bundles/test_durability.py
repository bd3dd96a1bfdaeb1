"""What the disk could not keep is an error; a kernel that cannot wait is none."""

from __future__ import annotations

import errno
import os
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
