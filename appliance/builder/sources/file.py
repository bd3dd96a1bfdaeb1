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
from pathlib import Path

from appliance.builder.sources import FileSource
from appliance.file_state import FileState, file_state, is_settled
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


_known: dict[FileState, Digest] = {}


def measure(path: Path, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Hash a whole file of the disk, once in a process. Each byte is read once, memory is 1 MiB.

    Returns:
        Its digest and its size in bytes.
    """
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        same = file_state(status)
        if same in _known:
            return _known[same], status.st_size
        state, done, may_keep = hashlib.sha256(), 0, is_settled(status)
        block = memoryview(bytearray(READ_BYTES))
        while size := file.readinto(block):
            state.update(block[:size])
            done += size
            on_progress(Progress(f"checking {path.name}", done, status.st_size))
    digest = Digest(state.hexdigest())
    if may_keep and done == status.st_size:
        _known[same] = digest
    return digest, done
