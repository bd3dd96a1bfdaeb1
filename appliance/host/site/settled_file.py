"""Whether a file is still what it was when it was read, without reading it again.

Owns the comparison. A write shows in the times of a file, but two writes within one tick show the same. Some file
systems keep whole seconds. So a file counts as settled only some seconds after its last change; before, it is read
again each time.
"""

from __future__ import annotations

import time
from pathlib import Path

SETTLED_NS = 2_100_000_000
"""More than two ticks of a file system that keeps whole seconds."""

FileState = tuple[int, int, int, int, int]


def settled_state(path: Path) -> FileState | None:
    """Values of which at least one changes with the file: device, inode, size in bytes, both times of change in ns.

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
