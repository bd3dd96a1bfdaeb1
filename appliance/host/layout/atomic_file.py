"""Small files that are complete after a power cut, or absent.

Owns the order write, fsync, rename, fsync of the folder. It must never leave a half-written file under its name.
"""

from __future__ import annotations

import os
from pathlib import Path

from bundles.medium import sync_folder


def write_file(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Write a small file atomically and durably.

    Args:
        path: in a folder that exists.
        data: the whole content.
        mode: of the file, independent of the umask.

    Returns:
        False when a file with these bytes and this mode was there already; then nothing is touched.
    """
    if _holds(path, data, mode):
        return False
    partial = partial_path(path)
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


def partial_path(path: Path) -> Path:
    """Where the new content of a file lies until it is complete; a kill may leave it there."""
    return path.with_name(f".{path.name}.partial")


def _holds(path: Path, data: bytes, mode: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return status.st_size == len(data) and status.st_mode & 0o7777 == mode and file.read() == data
