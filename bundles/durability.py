"""What programs that write gigabytes ask of Linux: `syncfs`, `sync_file_range`, and reads that reach the disk.

Owns these calls, and writes past the page cache. It must never be needed for reading: `verify.pyz` does without it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

WORTH_STARTING_BYTES = 1 << 20
_DIRECT_BLOCK_BYTES = 4096
_WAIT_BEFORE, _START, _WAIT_AFTER = 1, 2, 4  # SYNC_FILE_RANGE_…

_CANNOT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE)


def sync_file_system(folder: Path) -> None:
    """Make everything on the file system that holds a folder durable: one call for any number of new files.

    Raises:
        OSError: the disk could not keep it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def write_past_cache(descriptor: int, data: bytes | memoryview) -> None:
    """Write bytes at the end of a file that is being made; large ones go to the disk without a copy in memory.

    A copy costs more processor time than a SHA-256 of the same bytes. Where the file system, or the place of the bytes
    in memory, does not allow it (`O_DIRECT`), they are written as others are.

    Args:
        descriptor: of a file that was opened for writing, and stands at a multiple of 4096.
        data: the bytes; aligned to a page where they are to go past the cache.

    Raises:
        OSError: as `os.write`.
    """
    view = memoryview(data)
    whole = len(view) - len(view) % _DIRECT_BLOCK_BYTES
    if whole >= WORTH_STARTING_BYTES and _set_direct(descriptor, is_direct=True):
        try:
            while whole:
                done = os.write(descriptor, view[:whole])
                view, whole = view[done:], whole - done
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        finally:
            _set_direct(descriptor, is_direct=False)
    while view:
        view = view[os.write(descriptor, view) :]


def start_writing(descriptor: int) -> None:
    """Have the disk begin with what was written to a file; nobody waits for it, and nothing is promised."""
    size = os.fstat(descriptor).st_size
    if size >= WORTH_STARTING_BYTES:
        start_writing_range(descriptor, 0, size)


def start_writing_range(descriptor: int, start: int, size: int) -> None:
    """Have the disk begin with a range of a file, in bytes; as `start_writing`."""
    with suppress(OSError):
        _sync_range(descriptor, start, size, _START)


def wait_for_range(descriptor: int, start: int, size: int) -> None:
    """Wait until the disk has the bytes of a range. The file's own size and extents are durable after fsync only.

    Where the kernel or the file system cannot do this, nobody waits: fsync at the end decides.

    Raises:
        OSError: the disk could not keep it.
    """
    try:
        _sync_range(descriptor, start, size, _WAIT_BEFORE | _START | _WAIT_AFTER)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def forget_cached(descriptor: int) -> None:
    """Make a file durable, and have the kernel drop what it holds of it in memory: reads then ask the disk.

    After an error of writing, the memory has bytes that the disk has not, and a later fsync reports nothing.

    Raises:
        OSError: the disk could not keep it.
    """
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _set_direct(descriptor: int, *, is_direct: bool) -> bool:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if is_direct else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True


def _sync_range(descriptor: int, start: int, size: int, flags: int) -> None:
    _call("sync_file_range", descriptor, ctypes.c_int64(start), ctypes.c_int64(size), flags)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
