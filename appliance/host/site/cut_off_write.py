"""Reading a SQLite database whose last write was cut off, without the right to change it.

Owns the copy that is repaired in place of the file. After a power cut in a write, the database lies half written beside
its journal, and the next program that may write rolls it back. A reader such as the gateway may not, and would serve
nobody until then. So it rolls back a copy, and reads that.

Rule: the journal is copied first. Where it has changed at the end, somebody repairs the file itself at this moment.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory


def journal_of(path: Path) -> Path:
    """Where SQLite keeps the journal of a database."""
    return path.with_name(f"{path.name}-journal")


def is_cut_off(database: sqlite3.Connection, path: Path) -> bool:
    """Whether a reader meets a write that was cut off.

    Args:
        database: open, only for reading.
        path: of its file.

    Raises:
        sqlite3.Error: it cannot be read for another reason.
    """
    if not journal_of(path).exists():
        return False
    try:
        database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
        return True
    return False


def open_rolled_back(path: Path) -> sqlite3.Connection:
    """Open a copy in memory, as the database was before the write that was cut off.

    Args:
        path: of the database; a few hundred kilobytes.

    Raises:
        sqlite3.OperationalError: somebody repairs the file at this moment (`database is locked`).
        OSError: it cannot be read.
    """
    journal = journal_of(path)
    with TemporaryDirectory(prefix="keys-") as folder:
        copy = Path(folder) / "copy.db"
        try:
            before = journal.stat()
            shutil.copyfile(journal, journal_of(copy))
            shutil.copyfile(path, copy)
            after = journal.stat()
        except FileNotFoundError:
            raise sqlite3.OperationalError("database is locked") from None
        if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
            raise sqlite3.OperationalError("database is locked")
        memory = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(copy)) as rolled_back:
            rolled_back.backup(memory)
        return memory
