"""Files that one process at a time holds (threat T36).

Owns how such a lock is taken and waited for. It belongs to an open file description, which children inherit: while a
child of a killed process still runs, nobody else gets it. What it stands for, and what is said to whoever does not get
it, is the caller's.
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
    """Hold a lock for the length of a `with` block.

    Args:
        path: of the lock file, made where it is missing; a link in its place is refused.
        busy: the error for a lock that somebody else still has; gets the descriptor, to read who it is.
        timeout_s: how long to wait for them.
        on_wait: called again and again while waiting.
        mode: of a new file.

    Yields:
        The descriptor. Children that keep it open keep the lock.

    Raises:
        BusyError: of `busy`.
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
