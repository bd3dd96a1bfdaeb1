"""One copy over many files: what it reads, writes and hashes is counted, and what the host holds is taken over."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundles.chunks import check, copy, transfer, work_file
from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import CopyCount, copy_files
from bundles.chunks.work_file import CopyJob
from bundles.progress import Progress
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, NextStickError
from tests.bundles.chunks.shelf import Person, Shelf, file_of, seed, shelf

A, B, C = os.urandom(70_000), os.urandom(30_000), os.urandom(1)
WRONG_B = bytes([B[0] ^ 1]) + B[1:]


@dataclass
class Counted:
    """What happened in a block: bytes of all read and write calls, by the kernel's count, and bytes hashed."""

    read: int = 0
    written: int = 0
    hashed: int = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """Count the system calls of this process, and what its hashers are given."""
    counted = Counted()

    class Hasher:
        def __init__(self) -> None:
            self.state = hashlib.sha256()

        def update(self, data: memoryview) -> None:
            counted.hashed += len(data)
            self.state.update(data)

        def hexdigest(self) -> str:
            return self.state.hexdigest()

    class Library:
        sha256 = Hasher

    for module in (transfer, check):
        monkeypatch.setattr(module, "hashlib", Library)
    before = _io()
    yield counted
    after = _io()
    monkeypatch.undo()
    counted.read, counted.written = (after[name] - before[name] for name in ("rchar", "wchar"))


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def assert_one_pass(counted: Counted, size: int) -> None:
    """Each byte was read once, hashed once, and written once."""
    assert counted.hashed == size
    assert size <= counted.read <= 1.001 * size
    assert size <= counted.written <= 1.001 * size


def big(tmp_path: Path) -> tuple[list[CopyJob], Shelf, int]:
    parts = [os.urandom(size) for size in (5 << 20, 1 << 20, (1 << 20) + 1, 3 << 20, 12 << 20, 1)]
    files = [file_of("a", *parts[:3]), file_of("b", *parts[3:])]
    jobs = [CopyJob(file, tmp_path / "host" / file.path) for file in files]
    return jobs, shelf(tmp_path / "stick", *parts), sum(map(len, parts))


def test_each_byte_is_read_once_hashed_once_and_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, medium, size = big(tmp_path)
    with counting(monkeypatch) as counted:
        count = copy_files(jobs, medium)
    assert count == CopyCount(2, size, 0, size, 0)
    assert_one_pass(counted, size)


def test_copy_that_reads_twice_is_not_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, medium, size = big(tmp_path)
    with counting(monkeypatch) as counted:
        for name in os.listdir(medium.folder):
            with open(medium.folder / name, "rb") as blob:
                check.hash_range(blob.fileno(), 0, os.fstat(blob.fileno()).st_size)
        copy_files(jobs, medium)
    with pytest.raises(AssertionError):
        assert_one_pass(counted, size)


def test_progress_rises_to_the_size_of_all_files_whatever_was_there(tmp_path: Path) -> None:
    jobs = [CopyJob(file_of(name, *parts), tmp_path / name) for name, parts in (("a", (A, B)), ("b", (B, C)))]
    (tmp_path / "a").write_bytes(A + b"x" * len(B))
    (tmp_path / "b.partial").write_bytes(B)
    said: list[Progress] = []
    copy_files(jobs, shelf(tmp_path / "stick", A, B, C), None, said.append, "importing")
    assert [event.done for event in said] == sorted(event.done for event in said)
    assert said[-1] == Progress("importing", 130_001, 130_001)


def test_chunk_that_several_files_need_is_read_from_the_medium_once(tmp_path: Path) -> None:
    files = [file_of("a", A, B, A), file_of("b", B), file_of("c", A)]
    medium = shelf(tmp_path / "stick", A, B)
    count = copy_files([CopyJob(file, tmp_path / file.path) for file in files], medium)
    assert sorted(medium.opened) == sorted((sha256(A), sha256(B)))
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [A + B + A, B, A]
    assert (count.medium_bytes, count.held_bytes) == (100_000, 70_000 * 2 + 30_000)


def test_any_number_of_equal_files_is_made_with_few_open_at_a_time(tmp_path: Path) -> None:
    jobs = [CopyJob(file_of(f"a{number}", A[:9], C), tmp_path / f"a{number}") for number in range(200)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, before[1]))
    try:
        medium = shelf(tmp_path / "stick", A[:9], C)
        count = copy_files(jobs, medium)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (count.copied, len(medium.opened)) == (200, 2)
    assert {(tmp_path / f"a{number}").read_bytes() for number in range(200)} == {A[:9] + C}


def test_file_without_a_byte_is_made(tmp_path: Path) -> None:
    job = CopyJob(file_of("a"), tmp_path / "a")
    assert copy_files([job], shelf(tmp_path / "stick")).copied == 1
    assert copy_files([job], shelf(tmp_path / "stick")).kept == 1
    assert (tmp_path / "a").read_bytes() == b""


def test_only_the_damaged_chunk_of_a_file_is_read_from_the_medium_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(A + WRONG_B + C)
    medium = shelf(tmp_path / "stick", A, B, C)
    count = copy_files([CopyJob(file_of("a", A, B, C), tmp_path / "a")], medium)
    assert medium.opened == [sha256(B)]
    assert (count.medium_bytes, count.held_bytes) == (30_000, 70_001)
    assert (tmp_path / "a").read_bytes() == A + B + C


def test_hole_of_a_leftover_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [os.urandom(1 << 20) for _ in range(3)]
    with open(tmp_path / "a.partial", "wb") as leftover:
        leftover.seek(2 << 20)
        leftover.write(parts[2])
    hashed: list[int] = []

    def noting(descriptor: int, start: int, size: int) -> str:
        hashed.append(start)
        return check.hash_range(descriptor, start, size)

    monkeypatch.setattr(work_file, "hash_range", noting)
    medium = shelf(tmp_path / "stick", *parts)
    copy_files([CopyJob(file_of("a", *parts), tmp_path / "a")], medium)
    assert hashed == [2 << 20]
    assert medium.opened == [sha256(parts[0]), sha256(parts[1])] or medium.opened == [
        sha256(parts[1]),
        sha256(parts[0]),
    ]
    assert (tmp_path / "a").read_bytes() == b"".join(parts)


def test_chunks_that_the_host_holds_are_not_read_from_the_medium(tmp_path: Path) -> None:
    medium = shelf(tmp_path / "stick", B)
    held = seed(tmp_path / "old", C, A)
    count = copy_files([CopyJob(file_of("a", A, B), tmp_path / "a")], medium, held)
    assert medium.opened == [sha256(B)]
    assert (count.medium_bytes, count.held_bytes) == (30_000, 70_000)
    assert (tmp_path / "a").read_bytes() == A + B


def test_second_seed_is_tried_where_the_first_is_wrong(tmp_path: Path) -> None:
    wrong, right = seed(tmp_path / "wrong", A, data=b"x" * len(A)), seed(tmp_path / "right", A)
    held = {digest: (*wrong[digest], *right[digest]) for digest in right}
    copy_files([CopyJob(file_of("a", A), tmp_path / "a")], shelf(tmp_path / "stick"), held)
    assert (tmp_path / "a").read_bytes() == A


def _clones_by_copying(descriptor: int, request: int, origin: int | bytes = 0) -> int:
    """What a file system with shared extents does, on one without."""
    assert request == 0x40049409
    assert isinstance(origin, int)
    os.pwrite(descriptor, os.pread(origin, 1 << 20, 0), 0)
    return 0


def test_whole_file_is_cloned_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", _clones_by_copying)
    monkeypatch.setattr(copy, "transfer", None)
    medium = shelf(tmp_path / "stick")
    count = copy_files([CopyJob(file_of("a", A, B), tmp_path / "a")], medium, seed(tmp_path / "old", A, B))
    assert (count.copied, count.held_bytes, medium.opened) == (1, 100_000, [])
    assert (tmp_path / "a").read_bytes() == A + B


def test_wrong_byte_of_a_clone_is_read_from_the_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", _clones_by_copying)
    medium = shelf(tmp_path / "stick", A, B)
    held = seed(tmp_path / "old", A, B, data=A + WRONG_B)
    copy_files([CopyJob(file_of("a", A, B), tmp_path / "a")], medium, held)
    assert medium.opened == [sha256(B)]
    assert (tmp_path / "a").read_bytes() == A + B


def test_aligned_range_is_cloned_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = os.urandom(8192), os.urandom(4096)
    ranges: list[tuple[int, ...]] = []

    def ioctl(descriptor: int, _request: int, argument: bytes) -> int:
        origin, start, size, at = struct.unpack("qQQQ", argument)
        ranges.append((start, size, at))
        os.pwrite(descriptor, os.pread(origin, size, start), at)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(copy, "transfer", None)
    held = seed(tmp_path / "old", first, second)
    job = CopyJob(file_of("a", second, first), tmp_path / "a")
    copy_files([job], shelf(tmp_path / "stick"), held)
    assert sorted(ranges) == [(0, 8192, 4096), (8192, 4096, 0)]
    assert (tmp_path / "a").read_bytes() == second + first


def test_next_medium_is_asked_for_when_nothing_is_left_of_this_one(tmp_path: Path) -> None:
    person = shelf(tmp_path / "sticks", A, B, C, kind=Person)
    person.away = {sha256(B), sha256(C)}
    copy_files([CopyJob(file_of("a", A, B, C), tmp_path / "a")], person)
    chunks = file_of("a", A, B, C).chunks
    assert person.asked == [(chunks[1], chunks[2]), (chunks[2],)]
    assert person.opened == [chunk.sha256 for chunk in chunks]
    assert (tmp_path / "a").read_bytes() == A + B + C


def test_nobody_to_wait_for_keeps_what_is_there_for_the_next_run(tmp_path: Path) -> None:
    person = shelf(tmp_path / "sticks", A, B, kind=Person)
    person.away, person.plugged = {sha256(B)}, 0
    jobs = [CopyJob(file_of("a", A, B), tmp_path / "a"), CopyJob(file_of("c", A), tmp_path / "c")]
    with pytest.raises(NextStickError):
        copy_files(jobs, person)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "c").read_bytes() == A
    again = shelf(tmp_path / "sticks")
    copy_files(jobs, again)
    assert again.opened == [sha256(B)]


@pytest.mark.parametrize("error", [DamagedError("blob.missing", "b"), NextStickError("stick.pulled", "b")])
def test_medium_that_is_pulled_out_while_it_is_read_is_waited_for(tmp_path: Path, error: ApplianceError) -> None:
    person = shelf(tmp_path / "sticks", A, B, C, kind=Person)

    def pull(chunk: Chunk) -> None:
        if chunk.sha256 == sha256(B) and not person.asked:
            person.away = {sha256(A), sha256(B), sha256(C)}
            raise error

    person.before = pull
    job = CopyJob(file_of("a", A, B), tmp_path / "a")
    copy_files([job, CopyJob(file_of("b", B), tmp_path / "b")], person)
    assert sorted(person.opened) == sorted((sha256(A), sha256(B))), "no completed chunk is read again"
    assert person.asked
    assert (tmp_path / "a").read_bytes() == A + B


def test_damaged_blob_of_a_medium_that_is_still_there_is_not_waited_for(tmp_path: Path) -> None:
    person = shelf(tmp_path / "sticks", A, kind=Person)
    (person.folder / sha256(A)).write_bytes(b"x" * len(A))
    with pytest.raises(DamagedError) as caught:
        copy_files([CopyJob(file_of("a", A), tmp_path / "a")], person)
    assert (caught.value.code, caught.value.subject, person.asked) == ("contents.file-changed", "a", [])


def test_disk_that_could_not_keep_a_chunk_gives_no_file_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(copy, "wait_for_range", fails)
    data = os.urandom(1 << 20)
    with pytest.raises(ApplianceError) as caught:
        copy_files([CopyJob(file_of("a", data), tmp_path / "a")], shelf(tmp_path / "stick", data))
    assert caught.value.code == "write.failed"
    assert not (tmp_path / "a").exists()


def test_disk_writes_a_big_chunk_before_the_next_but_one_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(copy, "start_writing_range", lambda _fd, start, _size: order.append(f"start {start >> 20}"))
    monkeypatch.setattr(copy, "wait_for_range", lambda _fd, start, _size: order.append(f"wait {start >> 20}"))
    monkeypatch.setattr(copy, "copy_threads", lambda: 1)
    parts = [os.urandom(1 << 20) for _ in range(3)]
    copy_files([CopyJob(file_of("a", *parts), tmp_path / "a")], shelf(tmp_path / "stick", *parts))
    assert order == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]


def test_leftover_is_read_from_the_disk_that_may_not_have_kept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After an error of writing, memory still has the right bytes, and the next fsync reports nothing.
    partial = tmp_path / "a.partial"
    partial.write_bytes(A + B)

    def forget(descriptor: int) -> None:
        os.pwrite(descriptor, WRONG_B, len(A))

    monkeypatch.setattr(work_file, "forget_cached", forget, raising=False)
    medium = shelf(tmp_path / "stick", A, B)
    copy_files([CopyJob(file_of("a", A, B), tmp_path / "a")], medium)
    assert medium.opened == [sha256(B)]
    assert (tmp_path / "a").read_bytes() == A + B
