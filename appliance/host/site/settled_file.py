"""Whether a file is still what it was when it was read, without reading it again.

Owns the comparison. A write shows in the times of a file, but two writes within one tick of the kernel's clock show the
same. So a file counts as settled only some ticks after its last change; before, it is read again each time.
"""

from __future__ import annotations

import time
from pathlib import Path

SETTLED_NS = 100_000_000
"""Many times the tick of any kernel (1 to 10 ms)."""

FileState = tuple[int, int, int, int, int]


def settled_state(path: Path) -> FileState | None:
    """What differs where a file holds something else: device, inode, size in bytes, both times of change in ns.

    Args:
        path: of the file; take the state before it is read.

    Returns:
        None where it has just been changed, lies in the future of this clock, or cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED_NS:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
