"""Whether the gateway wishes that an engine runs: an empty file for each model that is loaded on demand.

Owns the file's place, and what it means. The gateway alone writes it. What starts the engine obeys: the program of the
engine's unit where systemd runs it, the engine keeper under `appliance serve`.

Rules:
- a wish holds nothing, and nothing is read from it: it can load and unload its model, and do nothing else;
- only a plain file is a wish. A link or a folder of that name is none.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SUFFIX = ".wish"


def wish_file(folder: Path, name: str) -> Path:
    """The file whose presence is the wish.

    Args:
        folder: where the gateway may write.
        name: of the engine, unique in the folder.
    """
    return folder / f"{name}{_SUFFIX}"


def is_wished(path: Path) -> bool:
    """Whether the wish is there; what cannot be read is none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def wish(path: Path) -> None:
    """Make the wish. Safe to call twice.

    Raises:
        OSError: the file cannot be made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))


def withdraw(path: Path) -> None:
    """Take the wish back. Safe to call twice.

    Raises:
        OSError: the file cannot be removed.
    """
    path.unlink(missing_ok=True)
