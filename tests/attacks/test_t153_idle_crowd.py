"""T153: connections without a request, opened by one machine until nobody else finds room."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from appliance.serve.listening.crowding import Crowd, Door
from tests.attacks.harness import guard_off, row

ROW = row(153)
LIMIT = 8
ATTACKER, USER = "127.0.0.9", "127.0.0.1"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()


def crowded(opened: int, begun: int = 0) -> tuple[int, list[bool]]:
    """A server behind a door, a crowd, and a user who comes last.

    Args:
        opened: connections of the attacker, beside one quiet connection of the user, which came first.
        begun: how many of them count as being answered.

    Returns:
        How many descriptors of the door's connections are open, and what was answered: the user who came last, and the
        quiet connection.
    """

    async def work() -> tuple[int, list[bool]]:
        door = Door(fileno=socket.create_server((USER, 0)).detach())
        door.crowd = Crowd(LIMIT)
        server = await asyncio.start_server(_echo, sock=door)
        port = door.getsockname()[1]
        with ExitStack() as stack:
            quiet = await asyncio.open_connection(USER, port)
            for _ in range(opened):
                stack.enter_context(await asyncio.to_thread(socket.create_connection, (USER, port), 10, (ATTACKER, 0)))
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            for number in list(door.crowd._addresses)[1 : 1 + begun]:
                door.crowd.begin(number)
            late = await asyncio.open_connection(USER, port)
            held = len([1 for line in (door.crowd._waiting.values()) for _ in line]) + len(door.crowd._busy)
            answers = [await _is_answered(*late), await _is_answered(*quiet)]
        server.close()
        return held, answers

    return asyncio.run(asyncio.wait_for(work(), 30))


async def _is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"ping")
    try:
        found = await asyncio.wait_for(reader.read(4), 5) == b"ping"
    except (OSError, asyncio.TimeoutError):
        found = False
    writer.close()
    return found


def test_unattacked_few_connections_stay() -> None:
    assert crowded(LIMIT - 2) == (LIMIT, [True, True])


@pytest.mark.parametrize("opened", [LIMIT, 20 * LIMIT])
def test_attacked_by_a_crowd_the_others_are_answered(opened: int) -> None:
    held, answers = crowded(opened)
    assert held == LIMIT
    assert answers == [True, True]


def test_attacked_what_is_being_answered_stays() -> None:
    held, answers = crowded(LIMIT, begun=LIMIT - 2)
    assert (held, answers[0]) == (LIMIT, True)


def test_unguarded_the_crowd_takes_a_descriptor_each() -> None:
    with guard_off(ROW.guard, lambda _crowd: False):
        assert crowded(20 * LIMIT)[0] > 20 * LIMIT
