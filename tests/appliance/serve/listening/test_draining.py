"""A gateway that another one follows refuses no connection, and ends no answer without an error."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.appliance.serve.gateway.site import Site, asking, opened

pytestmark = pytest.mark.ci
OK, UNAVAILABLE = 200, 503


@contextmanager
def site_with(slots: int = 2) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="draining-") as name, opened(Path(name), {"toy": slots}) as site:
        yield site


@contextmanager
def asked_all_the_time(site: Site, users: int = 3) -> Iterator[list[int | str]]:
    """What users see who ask without a pause, each on a new connection: statuses, or what went wrong in words."""
    seen: list[int | str] = []

    def ask() -> None:
        try:
            status, headers, body = site.ask("a question")
            whole = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            seen.append(f"{type(error).__name__}: {error}")
            return
        is_right = status == OK and whole["choices"][0]["message"]["content"] == "noitseuq a"
        is_refused = status == UNAVAILABLE and int(headers["retry-after"]) > 0
        seen.append(status if is_right or is_refused else f"{status}: {body!r}")

    with asking(ask, users):
        yield seen


def begin_at(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)


def test_user_who_asks_all_the_time_sees_answers_alone_while_gateways_follow_each_other() -> None:
    with site_with() as site, asked_all_the_time(site) as seen:
        begin_at(lambda: len(seen) > 5)
        site.process.stop()
        site.process.start()
        before = len(seen)
        begin_at(lambda: len(seen) > before + 5)
    assert set(seen) == {OK}


def test_answers_near_the_end_close_their_connections() -> None:
    with site_with() as site, closing(site.begin("slow 20")) as slow, closing(connect(site)) as connection:
        stream = slow.getresponse()
        connection.request("GET", "/livez")
        first = connection.getresponse()
        assert (first.read(), first.headers["connection"]) == (b"alive\n", None)
        stopping = threading.Thread(target=site.process.stop)
        stopping.start()
        time.sleep(0.15)
        connection.request("GET", "/livez")
        second = connection.getresponse()
        assert (second.read(), second.headers["connection"]) == (b"alive\n", "close")
        # One that ends in time is passed on whole.
        assert stream.read().endswith(b"data: [DONE]\n\n")
        stopping.join()


def connect(site: Site) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)


def test_what_is_not_complete_ends_with_an_error_and_not_in_silence() -> None:
    with site_with(slots=1) as site, closing(site.begin("slow 400")) as slow:
        stream = slow.getresponse()
        waiting = threading.Thread(target=lambda: refused.append(site.ask("a question")))
        refused: list[tuple[int, dict[str, str], bytes]] = []
        waiting.start()
        begin_at(lambda: site.gauge("waiting", "toy") == 1)
        site.process.stop()
        waiting.join()
        events = [json.loads(one.removeprefix(b"data: ")) for one in stream.read().split(b"\n\n") if one]
        assert [event["choices"][0]["delta"]["content"] for event in events[:3]] == ["0 ", "1 ", "2 "]
        assert events[-1]["error"]["code"] == "switching"
        ((status, headers, body),) = refused
        assert (status, headers["retry-after"]) == (UNAVAILABLE, "2")
        assert json.loads(body)["error"]["code"] == "switching"
