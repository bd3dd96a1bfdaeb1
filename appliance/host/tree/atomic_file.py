"""Small files that are there after a power cut, or not at all.

Owns the order write, fsync, rename, fsync of the folder. It must never leave a file half written under its name.
"""

from __future__ import annotations

import os
from pathlib import Path

from bundles.medium import sync_folder


def write_file(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Put a small file in place, durably.

    Args:
        path: in a folder that exists.
        data: the whole content.
        mode: of the file, whatever the umask says.

    Returns:
        False when the very bytes and mode were there already; then nothing is touched.
    """
    if _holds(path, data, mode):
        return False
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(partial, path)
    sync_folder(path.parent)
    return True


def _holds(path: Path, data: bytes, mode: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return status.st_size == len(data) and status.st_mode & 0o7777 == mode and file.read() == data
