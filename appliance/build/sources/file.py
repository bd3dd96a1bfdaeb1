"""Files of this machine.

Owns how a `file:` source is found and hashed. It must never copy: the file is read where it is, and whoever packs it
hashes it again while copying.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from appliance.build.sources import FileSource
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


def measure(path: Path, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Hash a whole file of the disk. Each byte is read once, memory is 1 MiB.

    Returns:
        Its digest and its size in bytes.
    """
    state, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        while block := file.read(READ_BYTES):
            state.update(block)
            done += len(block)
            on_progress(Progress(f"checking {path.name}", done, total))
    return Digest(state.hexdigest()), done
