"""What the kernel and the system show as small text files, below `/proc`, `/sys` and `/etc`."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file without the space around it; empty where it is not there or cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
