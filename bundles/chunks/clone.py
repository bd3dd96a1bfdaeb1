"""Sharing of extents between files of one file system, where it can do that (`FICLONE`, `FICLONERANGE`).

Owns the two requests. A clone promises nothing about bytes: the caller hashes it.

Source: ioctl_ficlonerange(2).
"""

from __future__ import annotations

import fcntl
import os
import struct

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_ALIGNED_BYTES = 4096


def clone_file(origin: int, destination: int) -> bool:
    """Make a file share all bytes of another; False where the file system or the kernel cannot."""
    try:
        fcntl.ioctl(destination, _FICLONE, origin)
    except OSError:
        return False
    return True


def clone_range(origin: int, start: int, size: int, destination: int, at: int) -> bool:
    """Make a range of a file share the bytes of another; False where that cannot be, as for ranges off a block.

    Args:
        origin, start: a descriptor that can be read, and the first byte.
        size: in bytes.
        destination, at: a descriptor that can be written, and the first byte there.
    """
    is_end = start + size == os.fstat(origin).st_size
    if start % _ALIGNED_BYTES or at % _ALIGNED_BYTES or (size % _ALIGNED_BYTES and not is_end):
        return False
    try:
        fcntl.ioctl(destination, _FICLONERANGE, struct.pack("qQQQ", origin, start, size, at))
    except OSError:
        return False
    return True
