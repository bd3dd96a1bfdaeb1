"""T138: a flood by one key, of requests or of the pieces of one request, keeps the others waiting."""

from __future__ import annotations

import asyncio

import pytest

from appliance.host.site.limits import Limits
from appliance.serve.sharing.fair_order import FairOrder, Line, Place
from appliance.serve.sharing.queue import QueueFullError, RequestQueue
from appliance.serve.sharing.share import Share
from tests.attacks.harness import guard_off, row

ROW = row(138)
FLOOD, OTHER = Share("flood"), Share("other")


def served(pieces: int, *, is_first: bool = True, limits: Limits | None = None) -> list[str]:
    """Who was served, in order: a flood came first, and one request of another key after it."""
    order: list[str] = []

    async def work() -> None:
        going_on = asyncio.Event()
        queue = RequestQueue(1, limits or Limits(waiting=1000, waiting_per_key=1000))

        async def ask(share: Share, *, is_first: bool) -> None:
            async with queue.slot(share, 500, is_first=is_first):
                order.append(share.owner)
                await going_on.wait()

        tasks = [asyncio.create_task(ask(FLOOD, is_first=is_first)) for _ in range(pieces)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(ask(OTHER, is_first=True)))
        await asyncio.sleep(0)
        going_on.set()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, QueueFullError):
                order.append("refused")

    asyncio.run(asyncio.wait_for(work(), 20))
    return order


def first_of_all(order: FairOrder, _may_start: object = None) -> Place | None:
    """The order of arrival, as a plain queue has it."""
    line: Line
    for line in list(order._round):
        place = line.places.popleft()
        line.running += 1
        line.at_work += place.cost
        order._settle(line)
        return place
    return None


def test_unattacked_one_key_alone_gets_the_whole_engine() -> None:
    assert served(0) == ["other"]


@pytest.mark.parametrize("is_first", [True, False], ids=["requests", "pieces of one request"])
def test_attacked_by_a_flood_the_other_key_is_next(is_first: bool) -> None:
    order = served(200, is_first=is_first)
    assert order.index("other") == 1
    assert len(order) == 201


def test_attacked_by_a_flood_the_other_key_finds_a_place_to_wait() -> None:
    order = served(200, limits=Limits(waiting=8))
    # The one that is answered and its own part of the places: the others of the flood are refused, and nobody else.
    assert (order.count("flood"), order.count("other"), order.count("refused")) == (5, 1, 195)


def test_unguarded_the_other_key_waits_for_the_whole_flood() -> None:
    with guard_off(ROW.guard, first_of_all):
        assert served(200).index("other") == 200


def test_unguarded_a_flood_takes_every_place() -> None:
    with guard_off("appliance.serve.sharing.fair_order.FairOrder.firsts", _firsts_of_all):
        assert served(200, limits=Limits(waiting=8)).count("other") == 0


def _firsts_of_all(order: FairOrder, owner: str | None = None) -> int:
    """Counts as if nobody had a part of its own: 0 for one owner."""
    return 0 if owner else sum(len(line.places) for line in order._round)
