"""Which models are to be loaded: an empty file for each of those that are loaded on demand.

Owns the file's place, and what it means. The gateway alone writes it. What starts the engine obeys: the program of the
engine's unit where systemd runs it, the engine keeper under `appliance serve`.

Rules:
- a mark is empty, and nothing is read from it: it can load and unload its model, and do nothing else;
- only a plain file is a mark. A link or a folder of that name is none.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

SUFFIX = ".load"
FOR_EVER = -1
"""The keep-alive of a model that is unloaded only where another needs its room."""


def mark_path(folder: Path, name: str) -> Path:
    """The file whose presence means that a model is to be loaded.

    Args:
        folder: where the gateway may write.
        name: of the engine, unique in the folder.
    """
    return folder / f"{name}{SUFFIX}"


def is_marked(path: Path) -> bool:
    """Whether the mark is there; what cannot be read is none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def set_mark(path: Path) -> None:
    """Make the mark. Safe to call twice.

    Raises:
        OSError: the file cannot be made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))


def remove_mark(path: Path) -> None:
    """Remove the mark. Safe to call twice.

    Raises:
        OSError: the file cannot be removed.
    """
    path.unlink(missing_ok=True)
