"""T135: a key that was revoked, replaced or has expired goes on in the answers that it began."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.events import ACCESS_ENDED
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.key_watch import POLL_S, KeyWatch
from tests.attacks.harness import guard_off, row
from tests.attacks.keyed_site import NOW, KeyedSite, keyed_site

ROW = row(135)
LONG, SHORT = "slow 200", "slow 20"
"""Ten seconds of a stream, and one."""


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedSite]:
    with tempfile.TemporaryDirectory(prefix="t135-") as name, keyed_site(Path(name)) as made:
        yield made


def test_unattacked_stream_goes_on_while_other_keys_end(site: KeyedSite) -> None:
    site.grant("ann")
    site.grant("eve")
    found = site.stream_while("ann", SHORT, lambda: site.store.revoke("eve", NOW))
    assert found[-1] == "[DONE]"
    assert len(found) > 20


def pass_time(site: KeyedSite) -> None:
    site.clock.pass_time(60)


ENDS: dict[str, Callable[[KeyedSite], object]] = {
    "revoked": lambda site: site.store.revoke("revoked", NOW),
    "replaced": lambda site: site.store.rotate("replaced", NOW),
    "expired": pass_time,
}


@pytest.mark.parametrize("how", ENDS)
def test_attacked_open_stream_ends_with_an_error_and_without_its_mark(site: KeyedSite, how: str) -> None:
    site.grant(how, expires=site.clock() + timedelta(seconds=30) if how == "expired" else None)
    site.events.clear()
    found = site.stream_while(how, LONG, lambda: ENDS[how](site))
    last = found[-1]
    assert isinstance(last, dict)
    assert last["error"]["code"] == "invalid_api_key"
    assert 0 < len(found) < 150, "the engine would have written 200"
    assert site.ask(how).status_code == 401
    ended = [event.fields["key"] for event in site.events if event.kind == ACCESS_ENDED]
    assert ended == [site.keys[how].split("-")[1]]
    assert POLL_S <= 0.5, "two looks within the second that is promised"


def test_attacked_answer_that_has_not_begun_is_refused(site: KeyedSite) -> None:
    site.grant("waits")
    replies: list[int] = []

    def begin_and_revoke() -> None:
        import threading

        asking = threading.Thread(target=lambda: replies.append(site.ask("waits", "hang").status_code))
        asking.start()
        while not site.gateway.books.watch._open:
            pass
        site.store.revoke("waits", NOW)
        asking.join(20)

    begin_and_revoke()
    assert replies == [401]


def test_unguarded_revoked_key_reads_its_stream_to_the_end(site: KeyedSite) -> None:
    site.grant("mallory")

    async def look(_watch: KeyWatch, _access: AccessStore, _now: datetime) -> None: ...

    with guard_off(ROW.guard, look):
        found = site.stream_while("mallory", SHORT, lambda: site.store.revoke("mallory", NOW))
    assert found[-1] == "[DONE]"
