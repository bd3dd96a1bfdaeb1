"""A key that ends takes with it what it began, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.host.site.api_keys import AccessStore, Key
from appliance.serve.callers.key_watch import KeyWatch
from signing.errors import BusyError
from tests.toy import NOW


@pytest.fixture
def store(tmp_path: Path) -> AccessStore:
    return AccessStore(tmp_path / "access.db")


def granted(store: AccessStore, name: str, hours: int | None = None) -> Key:
    key = store.check(store.grant(name, NOW, expires=None if hours is None else NOW + timedelta(hours=hours)), NOW)
    assert key is not None
    return key


def looked(store: AccessStore, *keys: Key, hours: int = 0) -> list[bool]:
    """Which of the keys' requests are ended after one look."""

    async def look() -> list[bool]:
        watch = KeyWatch()
        with ExitStack() as stack:
            signals = [stack.enter_context(watch.follow(key)) for key in keys]
            await watch.look(store, NOW + timedelta(hours=hours))
            assert len(watch._open) == len({key.id for key in keys})
            ended = [signal.is_set() for signal in signals]
        assert not watch._open
        return ended

    return asyncio.run(look())


def test_revoked_key_ends_each_of_its_requests_and_no_others(store: AccessStore) -> None:
    ann, bob = granted(store, "ann"), granted(store, "bob")
    assert looked(store, ann, ann, bob) == [False, False, False]
    store.revoke("ann", NOW)
    assert looked(store, ann, ann, bob) == [True, True, False]


def test_key_that_expires_or_is_replaced_ends_its_requests(store: AccessStore) -> None:
    ann, bob = granted(store, "ann", hours=1), granted(store, "bob")
    assert looked(store, ann, bob, hours=1) == [True, False]
    store.rotate("bob", NOW)
    assert looked(store, bob) == [True]


def test_database_that_is_gone_ends_everything_and_one_that_is_locked_nothing(
    store: AccessStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = granted(store, "ann")

    def locked(*_: object) -> None:
        raise BusyError("access.busy", "access.db", expected="", found="", hint="")

    with monkeypatch.context() as patch:
        patch.setattr(AccessStore, "valid", locked)
        assert looked(store, ann) == [False]
    (tmp_path / "access.db").unlink()
    assert looked(store, ann) == [True]
