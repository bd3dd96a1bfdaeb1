"""One changed byte in a file, and the way back.

Owns the damage that the demo does to its own copies. The damage must always be undone. So the old byte is written to a
note and synced before it changes, and a killed demo repairs its file when it runs again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOTE = "changed-byte.json"


@contextmanager
def changed_byte(folder: Path, path: Path) -> Iterator[int]:
    """Change the byte in the middle of a file in place, for as long as the block lasts.

    Args:
        folder: the demo's own folder, which takes the note.
        path: the file; its mode and modification time are put back with the byte.

    Yields:
        The byte's offset.
    """
    status = path.stat()
    offset = status.st_size // 2
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    note: dict[str, str | int] = {
        "path": str(path.resolve()),
        "offset": offset,
        "byte": byte,
        "mode": status.st_mode,
        "mtime_ns": status.st_mtime_ns,
    }
    _write_note(folder / NOTE, note)
    try:
        _write_byte(path, offset, byte ^ 0x01)
        os.chmod(path, status.st_mode & 0o7777)
        yield offset
    finally:
        restore(folder)


def restore(folder: Path) -> Path | None:
    """Put back the byte that a note holds.

    Returns:
        The file that was repaired, or None where there is no note.
    """
    note_path = folder / NOTE
    try:
        note = json.loads(note_path.read_text())
    except FileNotFoundError:
        return None
    path = Path(note["path"])
    if path.exists():
        _write_byte(path, note["offset"], note["byte"])
        os.chmod(path, note["mode"] & 0o7777)
        os.utime(path, ns=(path.stat().st_atime_ns, note["mtime_ns"]))
    note_path.unlink()
    return path


def _write_byte(path: Path, offset: int, byte: int) -> None:
    # The file may be read-only even for its owner, as an installed model is.
    path.chmod(path.stat().st_mode & 0o7777 | 0o200)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, bytes([byte]), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_note(path: Path, note: dict[str, str | int]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
