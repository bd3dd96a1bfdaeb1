"""The small text files in which the kernel and the system show their state, below `/proc`, `/sys` and `/etc`."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """Read the text of a file without the space around it; empty where it is missing or unreadable."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
