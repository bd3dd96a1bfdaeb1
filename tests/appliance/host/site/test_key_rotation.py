"""A rotated key keeps its name, its rights and its account; the old one ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from appliance.host.site.api_keys import AccessStore, Key
from appliance.host.site.key_merge import merge_keys
from appliance.host.site.rights import Rights
from signing.errors import UsageError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
RIGHTS = Rights(role="operator", quotas={"tokens_per_day": 9}, priority=2)


@pytest.fixture
def store(tmp_path: Path) -> AccessStore:
    return AccessStore(tmp_path / "access.db")


def valid(store: AccessStore, key: str, now: datetime = NOW) -> Key:
    found = store.check(key, now)
    assert found is not None
    return found


def test_new_key_has_the_name_the_rights_and_the_account_of_the_old_one(store: AccessStore) -> None:
    first = store.grant("ada", NOW, models=frozenset({"m"}), rights=RIGHTS, expires=NOW + 9 * HOUR)
    before = valid(store, first)
    second = store.rotate("ada", NOW)
    after = valid(store, second)
    assert store.check(first, NOW) is None
    assert (after.name, after.models, after.expires, after.rights) == ("ada", frozenset({"m"}), NOW + 9 * HOUR, RIGHTS)
    assert (after.account, after.id != before.id) == (before.id, True)
    third = valid(store, store.rotate("ada", NOW + HOUR), NOW + HOUR)
    assert third.account == before.id
    assert {entry.name for entry in store.list()} == {"ada", f"ada-{before.id}", f"ada-{after.id}"}


def test_old_key_counts_until_the_overlap_ends_and_never_longer_than_it_had(store: AccessStore) -> None:
    first = store.grant("ada", NOW, expires=NOW + 2 * HOUR)
    second = store.rotate("ada", NOW, overlap=HOUR, expires=NOW + 9 * HOUR)
    assert valid(store, first).account == valid(store, second).account
    assert store.check(first, NOW + HOUR) is None
    store.rotate("ada", NOW, overlap=99 * HOUR)
    assert store.check(second, NOW + 9 * HOUR) is None


def test_revoking_a_name_revokes_the_keys_that_it_replaced(store: AccessStore) -> None:
    first = store.grant("ada", NOW)
    other = store.grant("bob", NOW)
    second = store.rotate("ada", NOW, overlap=HOUR)
    assert store.revoke("ada", NOW)
    assert (store.check(first, NOW), store.check(second, NOW)) == (None, None)
    assert valid(store, other).name == "bob"
    assert not store.revoke("ada", NOW)


def test_revoking_a_former_key_ends_it_and_older_ones_and_not_its_successor(store: AccessStore) -> None:
    first = store.grant("ada", NOW)
    second = store.rotate("ada", NOW, overlap=HOUR)
    third = store.rotate("ada", NOW, overlap=HOUR)
    assert store.revoke(f"ada-{valid(store, second).id}", NOW)
    assert (store.check(first, NOW), store.check(second, NOW)) == (None, None)
    assert valid(store, third).name == "ada"
    assert store.revoke("ada", NOW)
    assert store.check(third, NOW) is None


def test_key_that_is_unknown_revoked_or_over_is_not_rotated_and_nothing_changes(store: AccessStore) -> None:
    store.grant("late", NOW, expires=NOW)
    store.grant("gone", NOW)
    store.revoke("gone", NOW)
    before = store.list()
    for name, code in (("nobody", "unknown"), ("gone", "revoked"), ("late", "over")):
        with pytest.raises(UsageError) as caught:
            store.rotate(name, NOW)
        assert caught.value.code == f"access.{code}"
    assert store.list() == before
    assert valid(store, store.rotate("late", NOW, expires=NOW + HOUR)).name == "late"


def test_right_of_a_later_version_goes_over_to_the_new_key(store: AccessStore, tmp_path: Path) -> None:
    key = valid(store, store.grant("ada", NOW, rights=RIGHTS))
    with closing(sqlite3.connect(tmp_path / "access.db")) as database, database:
        database.execute("ALTER TABLE rights ADD COLUMN floor INTEGER")
        database.execute("UPDATE rights SET floor = 7 WHERE key = ?", (key.id,))
    new = valid(store, store.rotate("ada", NOW))
    with closing(sqlite3.connect(tmp_path / "access.db")) as database:
        assert database.execute("SELECT floor FROM rights WHERE key = ?", (new.id,)).fetchone() == (7,)


def test_account_comes_back_with_a_backup(store: AccessStore, tmp_path: Path) -> None:
    first = valid(store, store.grant("ada", NOW, rights=RIGHTS))
    second = store.rotate("ada", NOW)
    merge_keys(tmp_path / "other.db", tmp_path / "access.db")
    found = valid(AccessStore(tmp_path / "other.db"), second)
    assert (found.name, found.account, found.rights) == ("ada", first.id, RIGHTS)


def test_only_ids_of_keys_that_count_are_valid(store: AccessStore) -> None:
    ids = [valid(store, store.grant(name, NOW, expires=NOW + HOUR)).id for name in ("ada", "bob")]
    store.revoke("bob", NOW)
    assert store.valid(ids, NOW) == {ids[0]}
    assert store.valid(ids, NOW + HOUR) == store.valid([], NOW) == frozenset()


def test_key_with_a_quota_or_priority_that_is_not_known_here_may_do_nothing(store: AccessStore) -> None:
    for rights in (Rights(quotas={"pages": 3}), Rights(priority=10), Rights(priority=-1), Rights(labels=frozenset())):
        key = Key("ada", None, None, rights=rights)
        assert (key.may_see("m"), key.may_use("m")) == (False, False)
    auditor = Key("ada", None, None, rights=Rights(role="auditor"))
    assert (auditor.may_see("m"), auditor.may_use("m"), auditor.rights.may_audit) == (True, False, True)
