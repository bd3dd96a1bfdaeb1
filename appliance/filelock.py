"""Lock files, each held by one process at a time (threat T36).

Owns how a lock is taken and waited for. It belongs to an open file description, which children inherit: while a
child of a killed process still runs, no other process gets it. The caller decides what a lock protects, and makes the
error for a lock that is taken.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from signing.errors import BusyError

_POLL_S = 0.05


@contextmanager
def hold(
    path: Path,
    busy: Callable[[int], BusyError],
    *,
    timeout_s: float = 0.0,
    on_wait: Callable[[], object] = lambda: None,
    mode: int = 0o600,
) -> Iterator[int]:
    """Hold a lock during a `with` block.

    Args:
        path: of the lock file, created where it is missing; a link in its place is refused.
        busy: makes the error for a lock that another process holds; it may read who that is from the descriptor.
        timeout_s: how long to wait for that process.
        on_wait: called repeatedly while waiting.
        mode: of a new file.

    Yields:
        The descriptor. A child that keeps it open keeps the lock.

    Raises:
        BusyError: another process held the lock for all that time; the error is that of `busy`.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        until = time.monotonic() + timeout_s
        while not _take(descriptor):
            if time.monotonic() >= until:
                raise busy(descriptor)
            on_wait()
            time.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
