"""Whether a file is still what it was when it was read, without reading it again.

Owns the comparison. A write shows in the times of a file, but two writes within one tick show the same. Some file
systems keep whole seconds. So what was read of a file may be kept only where its last change lies some seconds back.
"""

from __future__ import annotations

import os
import time

SETTLED_NS = 2_100_000_000
"""More than two ticks of a file system that keeps whole seconds."""

FileState = tuple[int, int, int, int, int]


def file_state(status: os.stat_result) -> FileState:
    """Values of which at least one changes with the file: device, inode, size in bytes, both times of change in ns.

    Args:
        status: taken before the file is read.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(status: os.stat_result) -> bool:
    """Whether any later change of the file has another state: false where it has just changed, or lies ahead.

    Args:
        status: taken before the file is read.
    """
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
