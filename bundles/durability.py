"""Two Linux system calls for programs that write gigabytes: `syncfs` and `sync_file_range`.

Owns two calls of Linux. It must never be needed for reading: `verify.pyz` does without it.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_WORTH_STARTING_BYTES = 1 << 20
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


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


def start_writing(descriptor: int) -> None:
    """Have the disk begin with what was written to a file; nobody waits for it, and nothing is promised."""
    size = os.fstat(descriptor).st_size
    if size >= _WORTH_STARTING_BYTES:
        with suppress(OSError):
            _call("sync_file_range", descriptor, ctypes.c_int64(0), ctypes.c_int64(size), _START_WRITING)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
