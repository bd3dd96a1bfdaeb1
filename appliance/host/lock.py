"""One install at a time (threat T36).

Owns the lock file of a prefix. The lock belongs to an open file description, which children inherit: while a child of a
killed install still runs, nobody else can begin.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.host.prefix import Prefix
from signing.errors import BusyError

WAIT_S = 5.0
_POLL_S = 0.05


@contextmanager
def hold(prefix: Prefix, wait_s: float = WAIT_S) -> Iterator[int]:
    """Hold the prefix's lock for the length of a `with` block.

    Args:
        prefix: its folders exist.
        wait_s: how long to wait for whoever holds it.

    Yields:
        The descriptor, to be passed on to children.

    Raises:
        BusyError: somebody else held it for all that time.
    """
    path = prefix.journal / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(descriptor, str(path), wait_s)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: str, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
        if time.monotonic() > until:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise BusyError(
                "install.busy",
                path,
                expected="no other install on this prefix",
                found=f"process {holder or 'unknown'} at work",
                hint="wait until it has finished, then run the same command again",
            )
        time.sleep(_POLL_S)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
