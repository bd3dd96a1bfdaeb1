"""T128: a backup from before a key was revoked is restored, so that the key is valid again."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.maintenance.backup import copy_database
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.key_merge import merge_keys
from tests.attacks.harness import guard_off, row
from tests.toy import NOW

ROW = row(128)


class KeyHolder:
    """Somebody whose key was granted, backed up, and then revoked on the host."""

    def __init__(self, folder: Path) -> None:
        self.path, self.backup = folder / "access.db", folder / "backup.db"
        self.store = AccessStore(self.path)
        self.key = self.store.grant("mallory", NOW, models=frozenset({"toy"}))
        copy_database(self.path, self.backup)
        self.store.revoke("mallory", NOW)

    def is_let_in(self) -> bool:
        return AccessStore(self.path).check(self.key, NOW) is not None


@pytest.fixture
def holder(tmp_path: Path) -> KeyHolder:
    return KeyHolder(tmp_path)


def test_unattacked_key_that_this_host_has_lost_is_valid_again(holder: KeyHolder) -> None:
    holder.path.unlink()
    assert merge_keys(holder.path, holder.backup).added == ("mallory",)
    assert holder.is_let_in()


def test_attacked_by_an_older_backup_the_key_stays_revoked(holder: KeyHolder) -> None:
    assert merge_keys(holder.path, holder.backup).added == ()
    assert not holder.is_let_in()


def test_attacked_by_a_backup_with_the_key_under_another_name(holder: KeyHolder) -> None:
    import sqlite3

    with sqlite3.connect(holder.backup) as database:
        database.execute("UPDATE keys SET name = 'alice', models = NULL")
    database.close()
    merge_keys(holder.path, holder.backup)
    assert not holder.is_let_in()
    assert [key.name for key in holder.store.list()] == ["mallory"]


def test_unguarded_the_revoked_key_is_let_in(holder: KeyHolder) -> None:
    with guard_off(ROW.guard, lambda _mine, theirs: theirs):
        merge_keys(holder.path, holder.backup)
    assert holder.is_let_in()
