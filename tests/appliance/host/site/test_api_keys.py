"""Keys have names, expire and can be revoked, and only their owner has them."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from appliance.events import ACCESS_GRANTED, Event
from appliance.host.site import api_keys
from appliance.host.site.api_keys import AccessStore, ensure_default, new_key
from signing.errors import ApplianceError, UsageError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture
def store(tmp_path: Path) -> AccessStore:
    return AccessStore(tmp_path / "access.db")


def test_a_granted_key_is_valid_and_every_other_text_is_not(store: AccessStore) -> None:
    key = store.grant("ada", NOW, models=frozenset({"m"}))
    found = store.check(key, NOW)
    assert found is not None
    assert (found.name, found.may_use("m"), found.may_use("n")) == ("ada", True, False)
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in ("", key[:-1], key + "x", key + "\n", key.upper(), changed, new_key(), "' OR 1=1 --", "\ud800"):
        assert store.check(wrong, NOW) is None


def test_a_key_without_a_list_of_models_may_use_all(store: AccessStore) -> None:
    found = store.check(store.grant("ada", NOW), NOW)
    assert found is not None
    assert found.may_use("anything")


def test_a_key_ends_at_its_time_and_not_before(store: AccessStore) -> None:
    key = store.grant("ada", NOW, expires=NOW + timedelta(hours=1))
    assert store.check(key, NOW + timedelta(minutes=59)) is not None
    assert store.check(key, NOW + timedelta(hours=1)) is None


def test_a_revoked_key_stays_revoked(store: AccessStore) -> None:
    key = store.grant("ada", NOW)
    assert store.revoke("ada", NOW)
    assert store.check(key, NOW) is None
    assert not store.revoke("ada", NOW)
    assert not store.revoke("nobody", NOW)
    assert [(entry.name, entry.is_revoked) for entry in store.list()] == [("ada", True)]
    with pytest.raises(UsageError, match=r"access\.taken"):
        store.grant("ada", NOW)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "ä", "a\n"])
def test_a_name_that_could_confuse_a_log_is_refused(store: AccessStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.grant(name, NOW)


def test_no_key_can_be_read_back_from_the_disk(store: AccessStore, tmp_path: Path) -> None:
    key = store.grant("ada", NOW)
    for path in tmp_path.iterdir():
        assert key.split("-", 2)[2].encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def test_other_processes_see_a_change_at_once(store: AccessStore, tmp_path: Path) -> None:
    other = AccessStore(tmp_path / "access.db")
    key = store.grant("ada", NOW)
    assert other.check(key, NOW) is not None
    other.revoke("ada", NOW)
    assert store.check(key, NOW) is None


def test_a_database_with_columns_of_a_later_version_still_works(store: AccessStore, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "access.db") as database:
        database.execute("ALTER TABLE keys ADD COLUMN quota INTEGER")
    database.close()
    assert store.check(store.grant("ada", NOW), NOW) is not None


def test_the_first_start_creates_one_key_in_a_private_file_and_later_starts_keep_it(
    store: AccessStore, tmp_path: Path
) -> None:
    file, events = tmp_path / "default.key", list[Event]()
    assert ensure_default(store, file, NOW, events.append) == file
    key = file.read_text().strip()
    key_id = key.split("-")[1]
    assert events == [Event(ACCESS_GRANTED, {"key": key_id, "account": key_id, "role": "user"})]
    assert file.stat().st_mode & 0o777 == 0o600
    assert store.check(key, NOW) is not None
    assert ensure_default(store, file, NOW) == file
    assert (file.read_text().strip(), len(store.list())) == (key, 1)


def test_a_key_file_of_an_interrupted_start_is_replaced(store: AccessStore, tmp_path: Path) -> None:
    file = tmp_path / "default.key"
    file.write_text(new_key())
    assert ensure_default(store, file, NOW) == file
    assert store.check(file.read_text().strip(), NOW) is not None


def test_a_site_that_keeps_its_own_keys_is_left_alone(store: AccessStore, tmp_path: Path) -> None:
    store.grant("ada", NOW)
    assert ensure_default(store, tmp_path / "default.key", NOW) is None
    assert not (tmp_path / "default.key").exists()


def test_a_revoked_default_key_is_not_granted_again(store: AccessStore, tmp_path: Path) -> None:
    file = tmp_path / "default.key"
    ensure_default(store, file, NOW)
    store.revoke("default", NOW)
    assert ensure_default(store, file, NOW) is None


@pytest.mark.parametrize("data", [b"not a database, " * 100, b"SQLite format 3\0" + bytes(4096)])
def test_database_that_cannot_be_read_is_damaged_and_no_bug(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "access.db"
    path.write_bytes(data)
    with pytest.raises(ApplianceError) as caught:
        AccessStore(path)
    assert (caught.value.code, caught.value.exit_code, caught.value.subject) == ("access.damaged", 3, str(path))
    with pytest.raises(ApplianceError, match=r"access\.damaged"):
        AccessStore(path, is_read_only=True).check(new_key(), NOW)


def test_database_that_another_process_locks_for_long_is_busy(
    store: AccessStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_BUSY_S", 0.05)
    with closing(sqlite3.connect(tmp_path / "access.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ApplianceError) as caught:
            store.list()
    assert (caught.value.code, caught.value.exit_code) == ("access.busy", 75)


def test_full_disk_and_a_database_of_somebody_else_are_named_as_that(tmp_path: Path) -> None:
    for found, number in (
        ("database or disk is full", errno.ENOSPC),
        ("attempt to write a readonly database", errno.EACCES),
    ):
        error = api_keys._unusable(tmp_path / "access.db", found, may_write=True)
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (number, str(tmp_path / "access.db"))
