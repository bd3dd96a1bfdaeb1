"""Hashing the same bytes for several purposes at once, on all cores, in bounded memory.

Owns the threads and the buffers between one reader and the work on the bytes that it read. It must never know what the
bytes are, or read them a second time.

Rules:
- one reader, in order; a buffer is filled again only when all work on it has ended;
- at most two buffers of 64 MiB and eight of 1 MiB are held, however large the files are;
- `in_order` work of one kind sees the pieces in the order in which they were read; other work in any order;
- the first failure stops the reader, and is raised there.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import BinaryIO, TypeVar

from bundles.chunks.chunk import MAX_CHUNK_BYTES

SMALL_BYTES = 1 << 20
_BIG_BUFFERS, _SMALL_BUFFERS = 2, 8
T = TypeVar("T")


class Piece:
    """Bytes that were read, in a buffer that is free again when all work on them has ended.

    Args:
        view: the bytes.
        give_back: called once, at the end.
    """

    def __init__(self, view: memoryview, give_back: Callable[[], None]) -> None:
        self.view = view
        self._give_back = give_back
        self._users = 1
        self._lock = Lock()

    def release(self, _future: object = None) -> None:
        """Count one user less; the reader is one of them."""
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self.view.release()
            self._give_back()

    def hold(self) -> None:
        """Count one user more."""
        with self._lock:
            self._users += 1


class HashPool:
    """Threads for one build; used as a context manager, which waits for them.

    Args:
        threads: for work in any order; 0: one for each core, at most eight. Each kind of ordered work has one more.
    """

    def __init__(self, threads: int = 0) -> None:
        self._any = ThreadPoolExecutor(threads or max(2, min(8, len(os.sched_getaffinity(0)))))
        self._ordered: dict[str, ThreadPoolExecutor] = {}
        self._free: dict[int, SimpleQueue[mmap.mmap]] = {size: SimpleQueue() for size in (SMALL_BYTES, MAX_CHUNK_BYTES)}
        self._made = dict.fromkeys(self._free, 0)
        self._failure: BaseException | None = None

    def __enter__(self) -> HashPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for pool in (self._any, *self._ordered.values()):
            pool.shutdown(cancel_futures=kind is not None)

    def read(self, stream: BinaryIO, size: int) -> Piece:
        """Read the next bytes into a free buffer, which may take until one is free.

        Args:
            stream: read forward.
            size: at most 64 MiB.

        Returns:
            A piece of `size` bytes, fewer only where the stream ends. The caller releases it.

        Raises:
            BaseException: the failure of earlier work.
        """
        most = SMALL_BYTES if size <= SMALL_BYTES else MAX_CHUNK_BYTES
        buffer = self._take(most)
        if self._failure is not None:
            raise self._failure
        done, whole = 0, memoryview(buffer)
        with whole:
            while done < size and (got := _read_into(stream, whole[done:size])):
                done += got
        return Piece(memoryview(buffer)[:done], lambda: self._free[most].put(buffer))

    def run(self, work: Callable[[memoryview], T], piece: Piece, *, in_order: str = "") -> Future[T]:
        """Run a function on a piece, in another thread.

        Args:
            work: keeps no reference to the bytes.
            piece: not yet released by its reader.
            in_order: the kind of work, where the order counts.
        """
        pool = self._any
        if in_order:
            pool = self._ordered.setdefault(in_order, ThreadPoolExecutor(1))
        piece.hold()
        future = pool.submit(work, piece.view)
        future.add_done_callback(self._note)
        future.add_done_callback(piece.release)
        return future

    def _note(self, future: Future[T]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None and self._failure is None:
            self._failure = error

    def _take(self, most: int) -> mmap.mmap:
        allowed = _SMALL_BUFFERS if most == SMALL_BYTES else _BIG_BUFFERS
        if self._free[most].empty() and self._made[most] < allowed:
            self._made[most] += 1
            # Private: pages that are shared with nobody are filled faster for the first time.
            return mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return self._free[most].get()


def _read_into(stream: BinaryIO, view: memoryview) -> int:
    with view:
        return stream.readinto(view) or 0  # type: ignore[attr-defined]
