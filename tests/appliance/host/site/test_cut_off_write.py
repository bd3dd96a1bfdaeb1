"""A gateway that may only read goes on after a power cut in a write of the keys."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.site.api_keys import AccessStore
from appliance.host.site.cut_off_write import journal_of
from signing.errors import BusyError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
MANY = 3000
"""Rows that do not fit into the cache: SQLite begins to change the file before the end."""


@pytest.fixture
def granted(tmp_path: Path) -> tuple[Path, str]:
    """A database with one key, in which a write of many was cut off."""
    path = tmp_path / "access.db"
    key = AccessStore(path).grant("ada", NOW)
    child = os.fork()
    if child == 0:
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE keys SET revoked = '2026-01-01T00:00:00Z'")
        for number in range(MANY):
            database.execute("INSERT INTO keys VALUES (?, ?, 'x', '', NULL, NULL, NULL)", (f"n{number}", f"i{number}"))
        os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(70)
    os.waitpid(child, 0)
    assert journal_of(path).exists()
    return path, key


def test_reader_sees_what_was_there_and_changes_nothing(granted: tuple[Path, str]) -> None:
    path, key = granted
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    reader = AccessStore(path, is_read_only=True)
    found = reader.check(key, NOW)
    assert found is not None
    assert [entry.name for entry in reader.list()] == ["ada"]
    assert reader.valid([found.id], NOW) == {found.id}
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_next_program_that_may_write_repairs_the_file_itself(granted: tuple[Path, str]) -> None:
    path, key = granted
    assert [entry.name for entry in AccessStore(path).list()] == ["ada"]
    assert not journal_of(path).exists()
    assert AccessStore(path, is_read_only=True).check(key, NOW) is not None


def test_repair_by_somebody_else_at_that_moment_is_busy_and_no_damage(
    granted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = granted
    copy = shutil.copyfile

    def copy_while_repaired(source: Path, target: Path) -> None:
        copy(source, target)
        AccessStore(path).list()

    monkeypatch.setattr(shutil, "copyfile", copy_while_repaired)
    with pytest.raises(BusyError):
        AccessStore(path, is_read_only=True).check(key, NOW)
