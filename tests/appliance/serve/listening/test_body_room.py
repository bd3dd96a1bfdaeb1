"""Bodies take a bounded memory together, and no key takes more than a half of it."""

from __future__ import annotations

import http.client
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.serve.listening.body_room import BodyRoom
from appliance.serve.requests.refusal import Refusal
from tests.appliance.serve.gateway.site import Site, opened, question

# The gateway as it is started, with room for few.
START = "from appliance.serve.listening import body_room; body_room.BodyRoom.__init__.__defaults__ = (4 << 20,)"
START += "; from appliance.serve.gateway.server import main; main()"
PART = 1 << 20


def test_room_is_given_back_when_a_request_ends() -> None:
    room = BodyRoom(100)
    with room.hold("ann") as take:
        take(30)
        take(20)
        assert room.held == 50
    assert room.held == 0


def test_key_that_has_a_half_is_refused_and_others_are_not() -> None:
    room = BodyRoom(100)
    with room.hold("ann") as first, room.hold("ann") as second, room.hold("bob") as other:
        first(50)
        with pytest.raises(Refusal) as refused:
            second(1)
        assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "5")
        other(50)
        with pytest.raises(Refusal), room.hold("eve") as late:
            late(1)
        assert room.held == 100


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        python = Path(name) / "python"
        python.write_text(f"#!/bin/sh\nshift 4\nexec {sys.executable} -I -B -c '{START}' \"$@\"\n")
        python.chmod(0o755)
        with opened(Path(name), {"toy": 1, "narrow": 1}, python) as made:
            yield made


def test_large_bodies_of_one_key_keep_no_other_from_an_answer(site: Site) -> None:
    with ExitStack() as stack:
        # Two of them fill the half of this key; the third is refused.
        statuses = [_status(stack.enter_context(HalfSent(site, "all"))) for _ in range(3)]
        assert statuses == [None, None, 429]
        body = question("x" * PART, "narrow")
        assert site.call("POST", "/v1/chat/completions", body, "narrow")[0] != 429
    assert site.log.read_text() == ""


class HalfSent:
    """A request whose body has come by half."""

    def __init__(self, site: Site, key: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
        self.connection.putrequest("POST", "/v1/chat/completions")
        self.connection.putheader("authorization", f"Bearer {site.keys[key]}")
        self.connection.putheader("content-length", str(2 * PART))
        self.connection.endheaders(b" " * PART)

    def __enter__(self) -> HalfSent:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def _status(half: HalfSent) -> int | None:
    """The status of the reply; None where the gateway still waits for the body."""
    assert half.connection.sock is not None
    half.connection.sock.settimeout(1)
    try:
        with half.connection.getresponse() as reply:
            return reply.status
    except TimeoutError:
        return None
