"""One install at a time (threat T36).

Owns the lock file of a prefix; the process that holds it writes its process id there. While a child of a killed install
still runs, no other install can begin (`appliance.filelock`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance import filelock
from appliance.host.layout.prefix import Prefix
from signing.errors import BusyError

WAIT_S = 5.0


@contextmanager
def hold(prefix: Prefix, wait_s: float = WAIT_S) -> Iterator[int]:
    """Hold the prefix's lock during a `with` block.

    Args:
        prefix: its folders exist.
        wait_s: how long to wait for another process that holds it.

    Yields:
        The descriptor, to be passed on to children.

    Raises:
        BusyError: another process held it for all that time.
    """
    path = prefix.journal / "lock"
    with filelock.hold(path, lambda descriptor: _busy(path, descriptor), timeout_s=wait_s) as descriptor:
        with suppress(OSError):  # on a full disk the lock holds without the number, which is for people
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor


def give_back_inherited(prefix: Prefix) -> None:
    """Close a descriptor of the lock that this process has from the one that started it, so that it can hold the lock.

    Args:
        prefix: the host; nobody else holds its lock meanwhile but that parent, which has become this process.
    """
    path = prefix.journal / "lock"
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), os.lstat(path)):
                os.close(int(name))


def _busy(path: Path, descriptor: int) -> BusyError:
    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return BusyError(
        "install.busy",
        str(path),
        expected="no other install on this prefix",
        found=f"process {holder or 'unknown'} at work",
        hint="wait until it has finished, then run the same command again",
    )
