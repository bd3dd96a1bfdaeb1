"""The one copy: from chunks to files, in one pass (docs/architecture.md, Sticks).

Owns the order of the work. Several threads each take whole chunks, over all files of a run, so that reading, hashing
and writing overlap. `transfer` copies one chunk, `work_file` is one file.

Rules (threats T16, T25, T35):
- each chunk is read from the medium at most once in a run, hashed while it is copied, and written in its place;
- where it is damaged there, and the source has another copy, that one is read;
- a chunk of an interrupted run, of a file under the final name, or of a seed is hashed again before it counts; one that
  differs is passed over, and the medium is read;
- a chunk that several files need is read once, and copied from the first of them;
- the disk begins to write each chunk at once, and a thread waits for an older one: progress is durable, and memory is
  bounded;
- a file gets its final name when its last chunk is right.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

from bundles.chunks.check import hash_range
from bundles.chunks.chunk import Chunk
from bundles.chunks.clone import clone_range
from bundles.chunks.source import ChunkSource, RebuildingSource, Seed, Seeds, WaitingSource, pass_over_of
from bundles.chunks.transfer import take, transfer, writing_to
from bundles.chunks.work_file import CopyJob, WorkFile, open_regular
from bundles.contents.contents import File
from bundles.durability import WORTH_STARTING_BYTES, start_writing_range, wait_for_range
from bundles.parallel import copy_threads, work_off
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest
from signing.errors import DamagedError, NextStickError


@dataclass(frozen=True)
class CopyCount:
    """What a copy did.

    Args:
        copied, copied_bytes: files that were made, and their size.
        kept: files that were right already.
        medium_bytes: chunks that were read from the medium, in bytes.
        held_bytes: chunks that came from this host: seeds, files of the same run, and what an earlier run left.
    """

    copied: int
    copied_bytes: int
    kept: int
    medium_bytes: int
    held_bytes: int


_MAX_PLACES = 64
"""Places of one chunk that are filled together, since their files stay open until the last of them is."""
Place = tuple[WorkFile, int]
"""Where a chunk belongs: a file, and the offset in bytes."""


@dataclass
class _Need:
    """A chunk, every place that needs it, and those that have it; None before anybody has looked."""

    chunk: Chunk
    places: list[Place] = field(default_factory=list)
    right: dict[Place, None] | None = None


def copy_files(
    jobs: Sequence[CopyJob],
    source: ChunkSource,
    seeds: Seeds | None = None,
    on_progress: OnProgress = ignore,
    task: str = "copying",
) -> CopyCount:
    """Assemble files from their chunks.

    Args:
        jobs: begun in this order; each destination once.
        source: untrusted; where it has `wait_for`, this is called when nothing is left that it holds.
        seeds: places on this host that may hold chunks.
        on_progress: called with bytes done of all files, in any thread, one call at a time.
        task: of `Progress`.

    Raises:
        NextStickError: by the source; what was copied is kept for the next run.
        DamagedError: a blob is missing, unreadable or differs; nothing incomplete has a final name.
        NotTrustedError: a blob is longer than signed, or no regular file.
        ApplianceError: the disk is full (code `disk.full`); the next run goes on from there.
    """
    return _Copy(jobs, source, seeds or {}, on_progress, task).run()


def copy_file(
    file: File,
    open_chunk: Callable[[Chunk], int],
    destination: Path,
    on_progress: OnProgress = ignore,
    mode: int | None = None,
) -> bool:
    """Assemble one file of the bundle from its blobs; errors as for `copy_files`.

    Args:
        file: verified.
        open_chunk: as `ChunkSource.open_chunk`.
        destination, mode: as for `CopyJob`.
        on_progress: called with bytes done.

    Returns:
        False where the right file was there already and was left alone.
    """
    count = copy_files(
        (CopyJob(file, destination, mode),), _OneCall(open_chunk), None, on_progress, f"copying {file.path}"
    )
    return count.copied == 1


class _OneCall:
    """A source that can open blobs, and knows nothing else."""

    def __init__(self, open_chunk: Callable[[Chunk], int]) -> None:
        self.open_chunk = open_chunk

    def holds(self, _chunk: Chunk) -> bool:
        """As if it had everything: `open_chunk` raises where it has not."""
        return True


class _Copy:
    """One run, with the values that its threads share."""

    def __init__(
        self, jobs: Sequence[CopyJob], source: ChunkSource, seeds: Seeds, on_progress: OnProgress, task: str
    ) -> None:
        self.source, self.seeds, self.on_progress, self.task = source, seeds, on_progress, task
        self.pass_over = pass_over_of(source)
        self.works = [WorkFile(job) for job in jobs]
        self.total = sum(job.file.size for job in jobs)
        self.done = self.medium_bytes = self.held_bytes = 0
        self.waiting = cast(WaitingSource, source) if hasattr(source, "wait_for") else None
        self.postponed: deque[_Need] = deque()
        self.unsettled: deque[_Need] = deque()
        self.threads = copy_threads()
        self.lock = Lock()
        self.copied: dict[Digest, tuple[Seed, ...]] = {}
        """Where this run has a chunk already: from those a source may rebuild others."""
        if hasattr(source, "use_places"):
            cast(RebuildingSource, source).use_places(self._find_places)

    def run(self) -> CopyCount:
        """Copy what is not right already."""
        work_off([(work, *place) for work in self.works if work.may_be_right() for place in work.places], self._compare)
        kept = [work for work in self.works if work.is_right()]
        rest = [work for work in self.works if not work.is_right()]
        for work in kept:
            work.keep()
            self.copied.update((chunk.sha256, work.seeds_at(start)) for start, chunk in work.places)
        try:
            self._make(rest)
        finally:
            for work in rest:
                work.close()
        copied_bytes = sum(work.job.file.size for work in rest)
        return CopyCount(len(rest), copied_bytes, len(kept), self.medium_bytes, self.held_bytes)

    def _compare(self, piece: tuple[WorkFile, int, Chunk]) -> None:
        work, start, chunk = piece
        if work.compare(start, chunk):
            self._count(chunk.size)

    def _make(self, works: Sequence[WorkFile]) -> None:
        places: dict[Chunk, list[Place]] = {}
        for work in works:
            work.clone_of = self._twin(work)
            for start, chunk in work.places:
                places.setdefault(chunk, []).append((work, start))
        work_off([work for work in works if not work.places], _finish_empty)
        while places:
            self._bring({chunk: _Need(chunk, wanted[:_MAX_PLACES]) for chunk, wanted in places.items()}, works)
            places = {chunk: wanted[_MAX_PLACES:] for chunk, wanted in places.items() if wanted[_MAX_PLACES:]}

    def _bring(self, needs: dict[Chunk, _Need], works: Sequence[WorkFile]) -> None:
        while needs:
            work_off(needs.values(), self._serve, self.threads)
            work_off(tuple(self.unsettled), lambda _need: self._settle_next())
            needs = {need.chunk: need for need in self.postponed}
            self.postponed.clear()
            if needs and self.waiting is not None:
                for work in works:
                    work.sync()
                self.waiting.wait_for(tuple(needs))

    def _find_places(self, digest: Digest) -> tuple[Seed, ...]:
        return (*self.copied.get(digest, ()), *self.seeds.get(digest, ()))

    def _twin(self, work: WorkFile) -> Path | None:
        """A file of this host that should have the same bytes from its first to its last."""
        if not work.places:
            return None
        for seed in self.seeds.get(work.places[0][1].sha256, ()):
            if all(Seed(seed.path, start) in self.seeds.get(chunk.sha256, ()) for start, chunk in work.places):
                return seed.path
        return None

    def _serve(self, need: _Need) -> None:
        """Bring a chunk to every place that needs it, or postpone it to another medium."""
        chunk = need.chunk
        if need.right is None:
            need.right = dict.fromkeys(place for place in need.places if self._is_left_over(place, chunk))
        for place in need.places:
            if place in need.right:
                continue
            donor = next(iter(need.right), None)
            with place[0].explained():
                if not self._is_held(chunk, place, donor) and not self._is_taken(chunk, place):
                    self.postponed.append(need)
                    return
                if chunk.size >= WORTH_STARTING_BYTES:
                    start_writing_range(place[0].descriptor, place[1], chunk.size)
            need.right[place] = None
            self._count(0 if place[1] in place[0].right else chunk.size)
        self.copied[chunk.sha256] = need.places[0][0].seeds_at(need.places[0][1])
        self.unsettled.append(need)
        if chunk.size < WORTH_STARTING_BYTES or len(self.unsettled) > self.threads:
            self._settle_next()

    def _is_left_over(self, place: Place, chunk: Chunk) -> bool:
        with place[0].explained():
            if not place[0].has(place[1], chunk):
                return False
        self._count(0 if place[1] in place[0].right else chunk.size, held_bytes=chunk.size)
        return True

    def _is_held(self, chunk: Chunk, place: Place, donor: Place | None) -> bool:
        """Copy from this host, where it has the chunk: another file of this run, a file to be replaced, or a seed."""
        work, at = place
        if donor is not None and _is_same(chunk, donor[0].descriptor, donor[1], place):
            self._count(0, held_bytes=chunk.size)
            return True
        own = (Seed(work.job.destination, at),) if at in work.right else ()
        for seed in (*own, *self._find_places(chunk.sha256)):
            try:
                origin = open_regular(seed.path)
            except OSError:
                continue
            try:
                if _is_same(chunk, origin, seed.offset, place):
                    self._count(0, held_bytes=chunk.size)
                    return True
            finally:
                os.close(origin)
        return False

    def _is_taken(self, chunk: Chunk, place: Place) -> bool:
        """Copy from the medium; False where it is not there, and another medium may come."""
        if self.waiting is not None and not self.source.holds(chunk):
            return False
        work, at = place
        try:
            write = writing_to(work.descriptor, at)
            take(self.source.open_chunk, chunk, write, work.job.file.path, self.pass_over)
        except (DamagedError, NextStickError) as error:
            # A medium that was pulled out is not damaged.
            if self.waiting is None:
                raise
            if self.source.holds(chunk):
                if medium := self.waiting.name_medium(chunk):
                    error.subject = f"{medium}: {error.subject}"
                raise
            return False
        self._count(0, medium_bytes=chunk.size)
        return True

    def _count(self, done: int, *, medium_bytes: int = 0, held_bytes: int = 0) -> None:
        with self.lock:
            self.done += done
            self.medium_bytes += medium_bytes
            self.held_bytes += held_bytes
            if done:
                self.on_progress(Progress(self.task, self.done, self.total))

    def _settle_next(self) -> None:
        try:
            need = self.unsettled.popleft()
        except IndexError:  # another thread was faster
            return
        for work, start in need.places:
            with work.explained():
                if need.chunk.size >= WORTH_STARTING_BYTES:
                    wait_for_range(work.descriptor, start, need.chunk.size)
                work.count_right()


def _finish_empty(work: WorkFile) -> None:
    with work.explained():
        work.finish()


def _is_same(chunk: Chunk, origin: int, start: int, place: Place) -> bool:
    """Copy a chunk from a file of this host; whether it was the right one."""
    work, at = place
    if os.fstat(origin).st_size < start + chunk.size:
        return False
    if clone_range(origin, start, chunk.size, work.descriptor, at):
        return hash_range(work.descriptor, at, chunk.size) == chunk.sha256
    try:
        transfer(chunk, origin, start, writing_to(work.descriptor, at), work.job.file.path)
    except DamagedError:
        return False
    return True
