"""A file counts as unchanged only where any change would show."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pytest

from appliance import file_state as module
from appliance.file_state import FileState, file_state, is_settled
from appliance.host.site.api_keys import AccessStore
from tests.toy import NOW


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that keeps nanoseconds: else each test would take seconds."""
    assert module.SETTLED_NS > 2_000_000_000
    monkeypatch.setattr(module, "SETTLED_NS", 100_000_000)


def settled_state(path: Path) -> FileState | None:
    status = path.stat()
    return file_state(status) if is_settled(status) else None


def set_back(path: Path, seconds: float = 60) -> None:
    """As if nobody had written for a while. Its second time of change cannot be set: that is waited for."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    while settled_state(path) is None:
        time.sleep(0.01)


def test_file_that_was_just_written_lies_ahead_or_is_gone_is_not_settled(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    assert settled_state(file) is None
    set_back(file)
    state = settled_state(file)
    assert state is not None
    file.write_text("two")
    assert settled_state(file) is None
    set_back(file, 59)
    assert settled_state(file) not in (None, state)
    ahead = time.time() + 3600
    os.utime(file, (ahead, ahead))
    time.sleep(0.2)
    assert settled_state(file) is None


def test_keys_are_read_again_only_where_their_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "access.db", 0
    writer = AccessStore(path)
    ann = writer.grant("ann", NOW)
    set_back(path)
    reader = AccessStore(path, is_read_only=True)
    connect = sqlite3.connect

    def counted(*words: object, **more: object) -> object:
        nonlocal opened
        opened += 1
        return connect(*words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", counted)
    for _ in range(5):
        assert reader.check(ann, NOW) is not None
        assert reader.check(ann.replace("ak-", "ak-0", 1), NOW) is None
    assert opened == 1
    writer.revoke("ann", NOW)
    assert reader.check(ann, NOW) is None
    set_back(path)
    assert reader.check(ann, NOW) is None
    assert reader.check(ann, NOW + timedelta(days=1)) is None


def test_another_database_in_place_of_the_keys_is_seen_at_once(tmp_path: Path) -> None:
    path, other = tmp_path / "access.db", tmp_path / "other.db"
    ann, bob = AccessStore(path).grant("ann", NOW), AccessStore(other).grant("bob", NOW)
    set_back(path)
    reader = AccessStore(path, is_read_only=True)
    assert reader.check(ann, NOW) is not None
    set_back(other)
    other.replace(path)
    assert (reader.check(ann, NOW), reader.check(bob, NOW) is not None) == (None, True)
