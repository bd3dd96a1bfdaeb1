"""Files of this machine.

Owns how a `file:` source is found and hashed. It must never copy: the file is read where it lies, and the packer hashes
it again while it copies.

Rules:
- a file is hashed once in a process, and again where its place, size or times have changed;
- the digest of a file that changed within the last second is not kept: another change could leave the same times.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

from appliance.builder.sources import FileSource
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import READ_BYTES, Digest
from signing.errors import UsageError


def find(source: FileSource, recipe_folder: Path) -> Path:
    """The path of the file; a relative source starts at the recipe's folder.

    Raises:
        UsageError: there is no such regular file, or it may not be read.
    """
    path = recipe_folder / source.path
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
        found = "readable" if os.access(path, os.R_OK) else "a file that may not be read"
    except OSError as error:
        is_regular, found = False, error.strerror or str(error)
    if not is_regular or found != "readable":
        raise UsageError(
            "source.missing",
            source.text,
            expected=f"a regular file at {path}",
            found=found if found != "readable" else "something else",
            hint="a relative path starts at the recipe's folder",
        )
    return path


_SETTLED_NS = 1_000_000_000
_known: dict[tuple[int, ...], Digest] = {}


def identity(status: os.stat_result) -> tuple[int, ...]:
    """The facts that change with a file: its place, size and times."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def measure(path: Path, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Hash a whole file of the disk, once in a process. Each byte is read once, memory is 1 MiB.

    Returns:
        Its digest and its size in bytes.
    """
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        same = identity(status)
        if same in _known:
            return _known[same], status.st_size
        state, done, is_settled = hashlib.sha256(), 0, time.time_ns() - status.st_ctime_ns > _SETTLED_NS
        block = memoryview(bytearray(READ_BYTES))
        while size := file.readinto(block):
            state.update(block[:size])
            done += size
            on_progress(Progress(f"checking {path.name}", done, status.st_size))
    digest = Digest(state.hexdigest())
    if is_settled and done == status.st_size:
        _known[same] = digest
    return digest, done
