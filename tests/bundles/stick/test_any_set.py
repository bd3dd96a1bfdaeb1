"""Whatever sticks a set is spread over, and whatever befalls them: a file has the signed bytes, or no name."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import CopyCount, copy_files
from bundles.chunks.work_file import CopyJob
from bundles.oci.layout import blob_path
from signing.digest import Digest
from signing.errors import ApplianceError
from tests.sim.sets.stick_sets import (
    BLOB_FAULTS,
    SetFiles,
    StickSet,
    damage,
    deal,
    leftovers,
    make_files,
    right_chunks,
)

UNIT = 64
"""Stands for 64 MiB."""
SIZES = (0, 1, UNIT - 1, UNIT, UNIT + 1, 2 * UNIT, 3 * UNIT - 1, 3 * UNIT, 5 * UNIT + 1)
STICKS = 3
EXIT = {"flipped": 3, "zeroed": 3, "truncated": 3, "unreadable": 3, "lengthened": 4}
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, where a sync costs nothing."""
CASES = settings(max_examples=30, deadline=None)


def contents(size: int, seed: int) -> bytes:
    """Bytes of which none is 0: a chunk that was not written cannot look like a right one."""
    return bytes(random.Random(seed).choices(range(1, 256), k=size))


FILES = st.lists(st.builds(contents, st.sampled_from(SIZES), st.integers(0, 3)), min_size=1, max_size=4).map(
    lambda whole: make_files(whole, UNIT)
)


@dataclass
class World:
    """A host's folder, files to be copied to it, and the sticks that hold them."""

    host: Path
    of: SetFiles
    set: StickSet

    def copy(self) -> CopyCount:
        jobs = [CopyJob(file, self.host / Path(file.path).name) for file in self.of.files]
        return copy_files(jobs, self.set)

    def ended(self) -> ApplianceError | None:
        """The error that a copy ends with; None where there is none."""
        try:
            self.copy()
        except ApplianceError as error:
            return error
        return None

    def exit_code(self) -> int:
        """How a copy ends: 0, or the exit code of its error."""
        error = self.ended()
        return error.exit_code if error else 0

    def require_no_wrong_file(self) -> None:
        """What has its final name holds the signed bytes."""
        for file in self.of.files:
            path = self.host / Path(file.path).name
            assert not path.exists() or path.read_bytes() == self.of.bytes_of(file)

    def require_whole(self) -> None:
        """Every file is there, and nothing else."""
        self.require_no_wrong_file()
        assert sorted(os.listdir(self.host)) == sorted(Path(file.path).name for file in self.of.files)

    def require_the_next_run_finishes(self) -> None:
        """With sticks that are whole again, a further run finishes, and reads nothing that was there already."""
        right = right_chunks(self.of, self.host)
        for stick in self.set.sticks:
            stick.heal()
        for chunk in self.of.chunks:
            for stick in self.set.sticks[:1]:
                (stick.root / blob_path(chunk.sha256)).write_bytes(self.of.data[chunk.sha256])
        self.set.slots, self.set.asks = STICKS, None
        self.set.forget()
        self.copy()
        assert right.isdisjoint(self.set.opened)
        self.require_whole()


@contextmanager
def world(of: SetFiles, holders: Mapping[Digest, frozenset[int]], slots: int = STICKS) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        folder = Path(name)
        (folder / "host").mkdir()
        yield World(folder / "host", of, StickSet(deal(folder, of, holders, STICKS), slots))


def deals(of: SetFiles, fewest: int = 1) -> st.SearchStrategy[dict[Digest, frozenset[int]]]:
    """On which sticks each blob lies: on one, on several, and with `fewest` 0 perhaps on none."""
    some = st.frozensets(st.integers(0, STICKS - 1), min_size=fewest)
    return st.fixed_dictionaries({chunk.sha256: some for chunk in of.chunks})


@CASES
@given(FILES, st.data(), st.integers(1, STICKS))
def test_any_set_in_any_order_gives_every_file_and_each_chunk_is_read_once(
    of: SetFiles, data: st.DataObject, slots: int
) -> None:
    with world(of, data.draw(deals(of)), slots) as made:
        made.set.first = data.draw(st.integers(0, STICKS - 1))
        made.copy()
        made.require_whole()
        places = [chunk.sha256 for file in of.files for chunk in file.chunks]
        assert sorted(made.set.opened) == sorted(set(places))


@CASES
@given(FILES, st.data(), st.integers(1, STICKS))
def test_a_set_with_missing_blobs_ends_with_5_and_keeps_what_it_has(
    of: SetFiles, data: st.DataObject, slots: int
) -> None:
    holders = data.draw(deals(of, fewest=0))
    with world(of, holders, slots) as made:
        assert made.exit_code() == (0 if all(holders.values()) else 5)
        made.require_no_wrong_file()
        there = {digest for digest, numbers in holders.items() if numbers}
        assert there <= right_chunks(of, made.host)
        made.require_the_next_run_finishes()


@CASES
@given(FILES, st.data())
def test_damaged_blobs_are_refused_by_the_right_code_and_never_get_a_name(of: SetFiles, data: st.DataObject) -> None:
    holders = data.draw(deals(of))
    copies = [(chunk, number) for chunk in of.chunks for number in sorted(holders[chunk.sha256])]
    faults: dict[tuple[Chunk, int], str] = {}
    if copies:
        some = st.sampled_from(copies)
        faults = data.draw(st.dictionaries(some, st.sampled_from(BLOB_FAULTS), max_size=4))
    with world(of, holders) as made:
        for (chunk, number), fault in faults.items():
            damage(made.set.sticks[number], chunk, fault)
        allowed = {EXIT[fault] for fault in faults.values()}
        if all(any((chunk, number) not in faults for number in holders[chunk.sha256]) for chunk in of.chunks):
            allowed.add(0)
        assert made.exit_code() in allowed
        made.require_no_wrong_file()
        made.require_the_next_run_finishes()


@CASES
@given(FILES, st.data())
def test_a_medium_that_answers_the_second_read_differently_gives_what_was_hashed(
    of: SetFiles, data: st.DataObject
) -> None:
    with world(of, data.draw(deals(of))) as made:
        for stick in made.set.sticks:
            for chunk in of.chunks:
                stick.give(blob_path(chunk.sha256), None, b"E" * chunk.size)
        assert made.exit_code() in (0, 3)
        made.require_no_wrong_file()
        made.require_the_next_run_finishes()


@CASES
@given(FILES, st.data())
def test_sticks_that_are_yanked_at_any_chunk_are_plugged_again_and_no_chunk_is_read_twice(
    of: SetFiles, data: st.DataObject
) -> None:
    with world(of, data.draw(deals(of))) as made:
        for stick in made.set.sticks:
            stick.yank_after_opens = data.draw(st.integers(0, len(of.chunks)))
        assert made.exit_code() in (0, 5)
        made.require_no_wrong_file()
        made.require_the_next_run_finishes()


@CASES
@given(FILES, st.data())
def test_a_disk_that_is_full_at_any_write_is_told_and_the_rest_follows(of: SetFiles, data: st.DataObject) -> None:
    left = [data.draw(st.integers(0, len(of.chunks)))]
    real = os.pwrite

    def pwrite(descriptor: int, view: bytes, at: int) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return real(descriptor, view, at)

    with world(of, data.draw(deals(of))) as made:
        with mock.patch.object(os, "pwrite", pwrite):
            error = made.ended()
        assert error is None or error.code == "disk.full"
        made.require_no_wrong_file()
        made.require_the_next_run_finishes()
        assert leftovers(made.host) == []
