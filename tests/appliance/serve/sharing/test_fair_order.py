"""The order of service under a flood: tokens are shared by weight, whatever the number and length of the pieces."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from appliance.host.site.limits import Limits
from appliance.serve.sharing.fair_order import QUANTUM
from appliance.serve.sharing.queue import ACTIVE_S, KEPT_S, RequestQueue
from appliance.serve.sharing.share import Share

ROOM = Limits(waiting=10_000, waiting_per_key=10_000)
FLOOD, OTHER = Share("flood"), Share("other")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


class Engine:
    """A simulated engine: pieces begin in the order of the queue, and a test ends the oldest one."""

    def __init__(self, slots: int, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.queue = RequestQueue(slots, ROOM, clock=clock)
        self.served: list[str] = []
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, share: Share, cost: int, spent: int | None = None) -> None:
        self._tasks.append(asyncio.create_task(self._do(share, cost, spent)))

    async def _do(self, share: Share, cost: int, spent: int | None) -> None:
        async with self.queue.slot(share, cost) as turn:
            end = asyncio.Event()
            self.served.append(share.owner)
            self._ends.append(end)
            await end.wait()
            if spent is not None:
                turn.spend(spent)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end_oldest(self) -> None:
        self._ends.pop(0).set()
        await self.settle()

    async def answer(self, share: Share) -> None:
        """Somebody asks, and is done a moment later."""
        self.ask(share, 100)
        await self.settle()
        await self.end_oldest()

    async def finish(self) -> list[str]:
        await self.settle()
        while self._ends:
            await self.end_oldest()
        await asyncio.gather(*self._tasks)
        return self.served


def test_other_key_is_served_next_though_a_flood_came_before_it() -> None:
    async def work() -> None:
        engine = Engine(2)
        for _ in range(20):
            engine.ask(FLOOD, 1000)
        await engine.settle()
        engine.ask(OTHER, 1000)
        served = await engine.finish()
        assert served[:3] == ["flood", "flood", "other"]

    run(work())


def test_two_floods_take_turns() -> None:
    async def work() -> None:
        engine = Engine(1)
        for share in (FLOOD, OTHER):
            for _ in range(6):
                engine.ask(share, 500)
        served = await engine.finish()
        assert served == ["flood", "other"] * 6

    run(work())


def test_many_short_pieces_get_as_many_tokens_as_few_long_ones() -> None:
    async def work() -> None:
        engine = Engine(1)
        for _ in range(10):
            engine.ask(FLOOD, 2000)
        for _ in range(100):
            engine.ask(OTHER, 100)
        served = Counter((await engine.finish())[:66])
        assert served["flood"] * 2000 == pytest.approx(served["other"] * 100, abs=2000 + QUANTUM)

    run(work())


def test_weight_is_the_part_of_the_tokens() -> None:
    async def work() -> None:
        engine = Engine(1)
        for share in (FLOOD, Share("other", weight=3)):
            for _ in range(100):
                engine.ask(share, 400)
        served = Counter((await engine.finish())[:80])
        assert 18 <= served["flood"] <= 22

    run(work())


def test_who_states_less_than_it_uses_waits_for_it_afterwards() -> None:
    async def work() -> None:
        engine = Engine(1)
        for _ in range(40):
            engine.ask(FLOOD, 100, spent=1000)
            engine.ask(OTHER, 1000, spent=1000)
        served = Counter((await engine.finish())[:40])
        assert 17 <= served["flood"] <= 23

    run(work())


def test_who_states_more_than_it_uses_gets_it_back() -> None:
    async def work() -> None:
        engine = Engine(1)
        for _ in range(120):
            engine.ask(FLOOD, 4000, spent=200)
            engine.ask(OTHER, 200, spent=200)
        # An estimate decides when a piece begins, so the difference is at most one of them: 20 pieces.
        served = Counter((await engine.finish())[:200])
        assert 80 <= served["flood"] <= 120

    run(work())


def test_pieces_of_one_request_wait_in_the_line_of_their_key() -> None:
    async def work() -> None:
        engine = Engine(1)
        for _ in range(50):
            engine.ask(FLOOD, 300)  # as the texts of one request for embeddings
        await engine.settle()
        engine.ask(OTHER, 300)
        assert (await engine.finish())[:3] == ["flood", "other", "flood"]

    run(work())


def test_quota_of_concurrency_leaves_slots_to_others_and_the_rest_waits() -> None:
    async def work() -> None:
        engine = Engine(4)
        for _ in range(6):
            engine.ask(Share("flood", concurrency=2), 100)
        await engine.settle()
        assert (engine.queue.running, engine.queue.waiting) == (2, 4)
        engine.ask(OTHER, 100)
        await engine.settle()
        assert engine.served == ["flood", "flood", "other"]
        assert (await engine.finish()).count("flood") == 6

    run(work())


def test_one_slot_stays_free_for_a_key_that_asked_a_moment_ago() -> None:
    async def work() -> None:
        now = 0.0
        engine = Engine(3, clock=lambda: now)
        await engine.answer(OTHER)
        for _ in range(5):
            engine.ask(FLOOD, 100)
        await engine.settle()
        assert engine.served == ["other", "flood", "flood"]
        engine.ask(OTHER, 100)
        await engine.settle()
        assert engine.served == ["other", "flood", "flood", "other"]
        # Who has not asked for a while has no place kept.
        now += KEPT_S + 1
        await engine.end_oldest()
        assert (engine.queue.running, engine.served[-1]) == (3, "flood")
        await engine.finish()

    run(work())


def test_key_that_asks_without_pause_gets_two_slots_beside_one_that_is_there_too() -> None:
    async def work() -> None:
        now = 0.0
        engine = Engine(8, clock=lambda: now)
        engine.ask(OTHER, 100)
        for _ in range(20):
            engine.ask(FLOOD, 100)
        await engine.settle()
        assert engine.served == ["other", "flood", "flood"]
        # The other one is done, and may come again.
        await engine.end_oldest()
        assert engine.served == ["other", "flood", "flood"]
        now += ACTIVE_S + 1
        await engine.end_oldest()
        assert (engine.queue.running, engine.served.count("flood")) == (7, 8)
        now += KEPT_S
        await engine.end_oldest()
        assert engine.queue.running == 8
        await engine.finish()

    run(work())


def test_what_others_hold_back_starts_when_they_have_not_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends and nobody asks meanwhile: time alone passes."""
    monkeypatch.setattr("appliance.serve.sharing.queue.LOOK_S", 0.01)

    async def work() -> None:
        now = 0.0
        engine = Engine(8, clock=lambda: now)
        await engine.answer(OTHER)
        for _ in range(10):
            engine.ask(FLOOD, 100)
        await engine.settle()
        assert engine.queue.running == 2
        now += ACTIVE_S + 1
        while engine.queue.running < 7:
            await asyncio.sleep(0.01)
        now += KEPT_S
        while engine.queue.running < 8:
            await asyncio.sleep(0.01)
        await engine.finish()

    run(work())


def test_two_busy_keys_use_three_slots_beside_a_third_that_asked_a_moment_ago() -> None:
    async def work() -> None:
        engine = Engine(3)
        await engine.answer(Share("third"))
        for share in (FLOOD, OTHER) * 5:
            engine.ask(share, 100)
        await engine.settle()
        assert engine.queue.running == 3
        await engine.finish()

    run(work())


def test_key_of_more_weight_gets_more_slots_beside_another() -> None:
    async def work() -> None:
        engine = Engine(8)
        engine.ask(OTHER, 100)
        for _ in range(20):
            engine.ask(Share("heavy", 2), 100)
        await engine.settle()
        assert engine.served == ["other", *["heavy"] * 4]
        await engine.finish()

    run(work())


@pytest.mark.parametrize("slots", [3, 4, 8])
def test_two_keys_that_ask_without_pause_use_every_slot(slots: int) -> None:
    async def work() -> None:
        engine = Engine(slots)
        for share in (FLOOD, OTHER) * 20:
            engine.ask(share, 100)
        await engine.settle()
        assert engine.queue.running == slots
        counts = sorted(engine.served.count(name) for name in ("flood", "other"))
        assert counts == [slots // 2, slots - slots // 2]
        await engine.finish()

    run(work())


def test_third_key_finds_a_slot_where_two_others_ask_without_pause() -> None:
    async def work() -> None:
        engine, third = Engine(8), Share("third")
        await engine.answer(third)
        for share in (FLOOD, OTHER) * 20:
            engine.ask(share, 100)
        await engine.settle()
        assert engine.queue.running == 7
        engine.ask(third, 100)
        await engine.settle()
        assert (engine.queue.running, engine.served[-1]) == (8, "third")
        await engine.finish()

    run(work())


def test_work_that_kept_nobody_waiting_is_not_held_against_its_key() -> None:
    async def work() -> None:
        engine = Engine(1)
        for _ in range(50):
            engine.ask(FLOOD, 1000)
            await engine.settle()
            await engine.end_oldest()
        engine.ask(FLOOD, 1000)
        await engine.settle()
        for share in (FLOOD, OTHER, FLOOD, OTHER):
            engine.ask(share, 1000)
        served = (await engine.finish())[51:]
        assert served == ["other", "flood", "other", "flood"]

    run(work())


@settings(max_examples=40, deadline=None)
@given(
    costs=some.lists(some.lists(some.integers(1, 3000), min_size=8, max_size=30), min_size=2, max_size=4),
    weights=some.lists(some.integers(1, 4), min_size=4, max_size=4),
)
def test_while_all_wait_nobody_is_behind_by_more_than_two_pieces_and_a_round(
    costs: list[list[int]], weights: list[int]
) -> None:
    async def work() -> None:
        engine = Engine(1)
        shares = [Share(str(at), weights[at]) for at in range(len(costs))]
        for share, own in zip(shares, costs, strict=True):
            for cost in own:
                engine.ask(share, cost)
        served = await engine.finish()
        got = Counter[str]()
        rest = {share.owner: list(own) for share, own in zip(shares, costs, strict=True)}
        bound = 2 * 3000 + QUANTUM * max(weights)
        for owner in served:
            if not all(rest.values()):
                break
            got[owner] += rest[owner].pop(0)
            parts = [got[share.owner] / share.weight for share in shares]
            assert max(parts) - min(parts) <= bound

    run(work())
