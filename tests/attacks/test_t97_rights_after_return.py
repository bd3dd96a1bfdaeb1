"""T97: a host returns to a release that knows no rights of keys, and a restricted key would have them all."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.host.site.api_keys import AccessStore, ensure_default
from appliance.host.site.rights import Rights
from tests.attacks.harness import guard_off, row

ROW = row(97)
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
FROZEN = Path(__file__).parents[1] / "released" / "api_keys-0.1.0.py.txt"
RESTRICTED = {
    "role": Rights(role="auditor"),
    "labels": Rights(labels=frozenset({"plant"})),
    "no labels": Rights(labels=frozenset()),
    "kind": Rights(kind="agent", policy="a" * 64),
    "quotas": Rights(quotas={"requests_per_minute": 10}),
    "priority": Rights(priority=-1),
    "strict": Rights(strict=True),
}

ENFORCED = {
    "operator": Rights(role="operator"),
    "known quotas": Rights(quotas={"tokens_per_day": 1, "concurrency": 1}),
    "higher priority": Rights(priority=9),
}
"""Restrictions that this version enforces, and the release before does not."""


@cache
def frozen() -> dict[str, Any]:
    """The names of version 0.1.0's module of keys."""
    module = ModuleType("api_keys_of_0_1_0")
    sys.modules[module.__name__] = module  # its dataclasses look for their module
    exec(compile(FROZEN.read_text(), str(FROZEN), "exec"), module.__dict__)
    return module.__dict__


def release_before(path: Path) -> Any:
    """The keys as version 0.1.0 reads them, by its own code."""
    return frozen()["AccessStore"](path)


def test_unattacked_key_of_a_list_of_models_is_the_same_before_and_after(tmp_path: Path) -> None:
    store = AccessStore(tmp_path / "access.db")
    for name, models in (("all", None), ("one", frozenset({"m"})), ("none", frozenset[str]())):
        key = store.grant(name, NOW, models=models)
        older, newer = release_before(tmp_path / "access.db").check(key, NOW), store.check(key, NOW)
        assert newer is not None
        assert [older.may_use(model) for model in "mn"] == [newer.may_use(model) for model in "mn"]


@pytest.mark.parametrize("rights", [*RESTRICTED.values(), *ENFORCED.values()], ids=[*RESTRICTED, *ENFORCED])
@pytest.mark.parametrize("models", [None, frozenset({"m"})])
def test_attacked_by_a_return_the_release_before_gives_it_nothing(
    tmp_path: Path, rights: Rights, models: frozenset[str] | None
) -> None:
    store = AccessStore(tmp_path / "access.db")
    key = store.grant("ada", NOW, models=models, rights=rights)
    older = release_before(tmp_path / "access.db")
    assert not older.check(key, NOW).may_use("m")
    assert [entry.models for entry in older.list()] == [frozenset()]
    found = store.check(key, NOW)
    assert found is not None
    assert (found.models, found.rights) == (models, rights)
    # The release before may revoke it, and nobody gets the name again.
    assert older.revoke("ada", NOW)
    assert store.check(key, NOW) is None


@pytest.mark.parametrize("rights", ENFORCED.values(), ids=ENFORCED)
def test_attacked_by_a_return_after_a_rotation(tmp_path: Path, rights: Rights) -> None:
    store = AccessStore(tmp_path / "access.db")
    former = store.grant("ada", NOW, rights=rights)
    key = store.rotate("ada", NOW)
    older = release_before(tmp_path / "access.db")
    assert older.check(former, NOW) is None
    assert not older.check(key, NOW).may_use("m")
    older.grant("bob", NOW)
    found = store.check(key, NOW)
    assert found is not None
    assert (found.rights, found.may_use("m")) == (rights, True)
    assert store.rotate("ada", NOW)


@pytest.mark.parametrize("rights", RESTRICTED.values(), ids=RESTRICTED)
def test_attacked_by_a_restriction_that_this_version_does_not_enforce(tmp_path: Path, rights: Rights) -> None:
    store = AccessStore(tmp_path / "access.db")
    found = store.check(store.grant("ada", NOW, rights=rights), NOW)
    assert found is not None
    assert not found.may_use("m")


@pytest.mark.parametrize(
    "change",
    [
        "role = 'owner'",
        "kind = 'robot'",
        "quotas = '[]'",
        "labels = '{}'",
        "labels = 'x'",
        "strict = 2",
        "policy = 'x'",
    ],
)
def test_attacked_by_a_value_of_a_later_version(tmp_path: Path, change: str) -> None:
    store = AccessStore(tmp_path / "access.db")
    key = store.grant("ada", NOW, rights=Rights(role="auditor"))
    with closing(sqlite3.connect(tmp_path / "access.db")) as database, database:
        database.execute(f"UPDATE rights SET {change}")
    found = store.check(key, NOW)
    assert found is not None
    assert not found.may_use("m")


def test_unattacked_database_of_the_release_before_is_read_without_being_changed(tmp_path: Path) -> None:
    older = release_before(tmp_path / "access.db")
    key = older.grant("ada", NOW)
    before = (tmp_path / "access.db").read_bytes()
    store = AccessStore(tmp_path / "access.db", is_read_only=True)
    found = store.check(key, NOW)
    assert found is not None
    assert found.may_use("anything")
    assert [entry.name for entry in store.list()] == ["ada"]
    assert (tmp_path / "access.db").read_bytes() == before


def test_unguarded_the_release_before_lets_it_use_everything(tmp_path: Path) -> None:
    with guard_off(ROW.guard, property(lambda _self: frozenset())):
        key = AccessStore(tmp_path / "access.db").grant("ada", NOW, rights=Rights(role="auditor"))
        assert release_before(tmp_path / "access.db").check(key, NOW).may_use("m")


@dataclass
class Granted:
    """A key and what it may use, as whoever granted it meant it."""

    key: str
    models: frozenset[str] | None
    is_restricted: bool
    is_revoked: bool = False


CALLS = st.lists(
    st.tuples(
        st.sampled_from(("grant", "revoke", "default")),
        st.booleans(),  # whether the release before does it
        st.integers(0, 5),
        st.sampled_from((None, frozenset({"m"}), frozenset[str]())),
        st.sampled_from((None, *RESTRICTED.values())),
    ),
    max_size=8,
)


@given(calls=CALLS)
@settings(max_examples=20, deadline=None)
def test_attacked_by_switches_and_returns_in_any_order_no_key_gains_a_right(calls: list[tuple[Any, ...]]) -> None:
    """Both releases change one database, one after the other, as upgrades and returns have it."""
    with TemporaryDirectory(prefix="keys-") as name:
        path, granted = Path(name) / "access.db", dict[str, Granted]()
        for call, is_older, number, models, rights in calls:
            newer, older = AccessStore(path), release_before(path)
            store, who = older if is_older else newer, f"user{number}"
            if call == "grant" and who not in granted:
                given_rights = {} if is_older else {"rights": rights}
                key = store.grant(who, NOW, models=models, **given_rights)
                granted[who] = Granted(key, models, is_restricted=bool(given_rights.get("rights")))
            elif call == "revoke" and who in granted:
                granted[who].is_revoked |= store.revoke(who, NOW)
            elif call == "default":
                (keys_before if is_older else keys_now)(store, path.with_name("default.key"), NOW)
            for one in granted.values():
                _check_no_more(one, (newer.check(one.key, NOW), older.check(one.key, NOW)))


def keys_now(store: AccessStore, key_file: Path, now: datetime) -> object:
    return ensure_default(store, key_file, now)


def keys_before(store: Any, key_file: Path, now: datetime) -> object:
    return frozen()["ensure_default"](store, key_file, now)


def _check_no_more(granted: Granted, found: tuple[Any, Any]) -> None:
    for one in found:
        assert (one is None) is granted.is_revoked
        for model in "mn" if one is not None else "":
            is_meant = granted.models is None or model in granted.models
            assert one.may_use(model) is (is_meant and not granted.is_restricted)
