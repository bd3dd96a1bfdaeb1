"""T136: a key that uses more than its tokens of the day: by many requests, other routes, a new key, or a new start."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from appliance.serve.callers.books import Books
from appliance.serve.requests.paths import COMPLETIONS
from tests.attacks.harness import guard_off, row
from tests.attacks.keyed_site import NOW, KeyedSite, keyed_site

ROW = row(136)
SMALL = {"quotas": {"tokens_per_day": 10}}
"""One answer of the engine takes 8 tokens."""


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedSite]:
    with tempfile.TemporaryDirectory(prefix="t136-") as name, keyed_site(Path(name)) as made:
        yield made


@pytest.fixture(autouse=True)
def _today(site: KeyedSite) -> Iterator[None]:
    yield
    site.clock.set(NOW)


def use_up(site: KeyedSite, name: str) -> None:
    for _ in range(2):
        assert site.ask(name).status_code == 200


def test_unattacked_key_is_answered_until_its_tokens_are_used_and_again_the_next_day(site: KeyedSite) -> None:
    site.grant("ann", **SMALL)
    use_up(site, "ann")
    site.clock.set(datetime(2026, 1, 3, tzinfo=timezone.utc))
    use_up(site, "ann")


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"n": 3}])
def test_attacked_by_another_request_of_any_kind(site: KeyedSite, how: dict[str, Any]) -> None:
    name = f"eve{len(site.keys)}"
    site.grant(name, **SMALL)
    use_up(site, name)
    reply = site.ask(name, **how)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "quota_exceeded")
    assert int(reply.headers["retry-after"]) == 12 * 3600 + 1
    body = {"model": "toy", "prompt": "abc"}
    assert site.client.post(COMPLETIONS, json=body, headers=site.headers(name)).status_code == 429


def test_attacked_by_many_answers_in_one_request(site: KeyedSite) -> None:
    site.grant("many", **SMALL)
    reply = site.ask("many", n=8)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "quota_exceeded")
    # What was begun with the last token is finished: two pieces, since the engine has two slots.
    assert 10 <= site.gateway.books.usage.today(site.account("many")).tokens < 3 * 8


def test_attacked_by_streams_that_are_left_before_they_state_their_tokens(site: KeyedSite) -> None:
    site.grant("leaver")
    found = site.stream_while("leaver", "slow 200", lambda: site.store.revoke("leaver", NOW))
    used = site.gateway.books.usage.today(site.account("leaver"))
    assert used.tokens_in > 0
    assert used.tokens_out >= len(found) - 2


def test_attacked_by_answers_that_are_left_before_they_are_whole(site: KeyedSite) -> None:
    site.grant("waiter")
    site.stream_while("waiter", "slow 200", lambda: site.store.revoke("waiter", NOW), is_stream=False)
    used = site.gateway.books.usage.today(site.account("waiter"))
    assert used.tokens_in > 0
    assert used.tokens_out > 0


def test_attacked_by_requests_that_wait_while_others_use_the_tokens(site: KeyedSite) -> None:
    site.grant("crowd", quotas={"tokens_per_day": 10, "concurrency": 1})
    with ThreadPoolExecutor(8) as pool:
        codes = [reply.status_code for reply in pool.map(lambda _: site.ask("crowd", "slow 4"), range(8))]
    assert sorted(codes) == [200, 200, *[429] * 6]
    assert site.gateway.books.usage.today(site.account("crowd")).tokens == 2 * 8


def test_attacked_by_a_new_key_of_the_same_name(site: KeyedSite) -> None:
    site.grant("changer", **SMALL)
    use_up(site, "changer")
    site.keys["changer"] = site.store.rotate("changer", NOW)
    assert site.ask("changer").status_code == 429


def test_attacked_by_a_new_start_of_the_gateway(site: KeyedSite) -> None:
    site.grant("restarter", **SMALL)
    use_up(site, "restarter")

    async def start_again() -> Books:
        await site.gateway.books.write()
        following = Books(site.clock, site.gateway.books._file.path if site.gateway.books._file else None)
        async with following.running(site.store):
            return following

    following = asyncio.run(start_again())
    assert following.usage.today(site.account("restarter")).tokens >= 10


def test_attacked_by_a_clock_that_is_one_second_before_midnight(site: KeyedSite) -> None:
    site.grant("late", **SMALL)
    site.clock.set(datetime(2026, 1, 3, tzinfo=timezone.utc) - timedelta(seconds=1))
    use_up(site, "late")
    reply = site.ask("late")
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "2")


def test_unguarded_key_is_answered_without_end(site: KeyedSite) -> None:
    site.grant("mallory", **SMALL)
    use_up(site, "mallory")
    with guard_off(ROW.guard, lambda _caller: None):
        assert site.ask("mallory").status_code == 200
