"""Connections that wait make room for those that bring a request: the oldest of whoever has most of them."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from appliance.serve.listening.crowding import Crowd
from tests.appliance.serve.gateway.site import Site, opened

LIMIT = 20
# The gateway as it is started, with room for few.
START = "from appliance.serve.listening.connection_timeouts import TimeoutProtocol as one"
START += f"; one.crowd.limit = {LIMIT}; from appliance.serve.gateway.server import main; main()"


@contextmanager
def connections(count: int) -> Iterator[list[socket.socket]]:
    """Sockets as they are accepted, and what tells whether each was shut down."""
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        for pair in pairs:
            for one in pair:
                stack.enter_context(one)
        yield [one for one, _ in pairs]


def is_shut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_oldest_waiting_connection_of_the_largest_address_is_closed() -> None:
    crowd = Crowd(4)
    with connections(5) as (quiet, old, busy, young, late):
        crowd.enter(quiet, "192.0.2.1")
        for one in (busy, old, young):
            assert not crowd.enter(one, "192.0.2.2")
        crowd.begin(busy.fileno())
        assert crowd.enter(late, "192.0.2.3")
        assert [is_shut(one) for one in (quiet, busy, old, young, late)] == [False, False, True, False, False]
        assert crowd.size == 4


def test_connection_whose_answer_is_complete_waits_as_the_youngest() -> None:
    crowd = Crowd(2)
    with connections(3) as (first, second, late):
        crowd.enter(first, "192.0.2.1")
        crowd.begin(first.fileno())
        crowd.enter(second, "192.0.2.1")
        crowd.rest(first.fileno())
        assert crowd.enter(late, "192.0.2.9")
        assert (is_shut(first), is_shut(second)) == (False, True)


def test_crowd_in_which_everybody_is_answered_closes_nobody() -> None:
    crowd = Crowd(1)
    with connections(2) as (first, late):
        crowd.enter(first, "192.0.2.1")
        crowd.begin(first.fileno())
        assert not crowd.enter(late, "192.0.2.9")
        assert not is_shut(first)
        crowd.leave(first.fileno())
        crowd.leave(first.fileno())
        assert crowd.size == 1


def test_connection_that_has_ended_unheard_takes_no_place() -> None:
    crowd = Crowd(1)
    with connections(2) as (first, late):
        crowd.enter(first, "192.0.2.1")
        first.close()
        assert not crowd.enter(late, "192.0.2.9")
        assert crowd.size == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::2"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::2%eth0")],
)
def test_addresses_of_one_machine_count_as_one(one: str, other: str) -> None:
    crowd = Crowd(3)
    with connections(4) as (quiet, first, second, late):
        crowd.enter(quiet, "198.51.100.1")
        crowd.enter(first, one)
        crowd.enter(second, other)
        crowd.enter(late, "198.51.100.2")
        assert [is_shut(each) for each in (quiet, first, second)] == [False, True, False]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        python = Path(name) / "python"
        python.write_text(f"#!/bin/sh\nshift 4\nexec {sys.executable} -I -B -c '{START}' \"$@\"\n")
        python.chmod(0o755)
        with opened(Path(name), {"toy": 1}, python) as made:
            yield made


def test_crowd_of_idle_connections_keeps_nobody_from_an_answer(site: Site) -> None:
    with ExitStack() as stack:
        asked = site.begin("slow 40", stream=True)
        stack.callback(asked.close)
        stream = asked.getresponse()
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 20, ("127.0.0.9", 0)))
            for _ in range(5 * LIMIT)
        ]
        assert site.call("GET", "/v1/models")[0] == 200
        # The oldest of the crowd went; the youngest and who is being answered stayed.
        assert crowd[0].recv(1) == b""
        assert not is_shut(crowd[-1])
        assert b"39 " in stream.read()
        assert len(list(Path(f"/proc/{_pid(site)}/fd").iterdir())) < 2 * LIMIT + 20
    assert site.log.read_text() == ""


def _pid(site: Site) -> int:
    child = site.process._child
    assert child is not None
    assert child.program_pid is not None
    return child.program_pid
