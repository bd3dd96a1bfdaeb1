"""The queue in front of an engine: bounded in number and time, in order for each owner, and no slot is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from appliance.host.site.limits import Limits
from appliance.serve.sharing.queue import QueueFullError, RequestQueue
from appliance.serve.sharing.share import Share

ME, OTHER = Share("me"), Share("other")


async def enter(queue: RequestQueue, share: Share, cost: int) -> None:
    async with queue.slot(share, cost):
        pass


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_no_request_waits_longer_than_the_limit() -> None:
    async def work() -> None:
        queue = RequestQueue(1, max_wait_s=0.01)
        async with queue.slot(ME, 1):
            with pytest.raises(QueueFullError):
                async with queue.slot(ME, 1):
                    pass
        assert (queue.running, queue.waiting) == (0, 0)

    run(work())


def test_time_to_try_again_follows_how_fast_the_engine_has_worked() -> None:
    async def work() -> None:
        now = 0.0
        queue = RequestQueue(2, Limits(waiting=2, waiting_per_key=2), clock=lambda: now)
        for _ in range(30):
            async with queue.slot(ME, 100) as turn:
                now += 100.0
                turn.spend(200)
        assert queue.tokens_per_s == pytest.approx(2, rel=0.01)
        async with queue.slot(ME, 1), queue.slot(ME, 1):
            waiting = [asyncio.create_task(enter(queue, ME, 40)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError) as caught:
                await enter(queue, OTHER, 40)
            assert (caught.value.retry_after_s, caught.value.is_own) == (40, False)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    run(work())


def test_one_owner_fills_its_part_of_the_places_and_no_more() -> None:
    async def work() -> None:
        queue = RequestQueue(1, Limits(waiting=4))
        async with queue.slot(ME, 1):
            waiting = [asyncio.create_task(enter(queue, ME, 50)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError) as caught:
                await enter(queue, ME, 50)
            assert caught.value.is_own
            others = [asyncio.create_task(enter(queue, OTHER, 1)) for _ in range(2)]
            await asyncio.sleep(0)
            assert queue.waiting == 4
            with pytest.raises(QueueFullError) as caught:
                await enter(queue, Share("third"), 1)
            assert not caught.value.is_own
        await asyncio.gather(*waiting, *others)

    run(work())


def test_default_bounds_follow_the_slots_and_a_half_is_for_one_owner() -> None:
    queue = RequestQueue(4)
    assert (queue.max_waiting, queue.max_waiting_each) == (64, 32)
    queue = RequestQueue(4, Limits(waiting=10, waiting_per_key=50))
    assert (queue.max_waiting, queue.max_waiting_each) == (10, 10)
    queue = RequestQueue(1, Limits(waiting=1))
    assert (queue.max_waiting, queue.max_waiting_each) == (1, 1)


def test_further_pieces_of_long_lists_keep_nobody_out() -> None:
    async def work() -> None:
        queue, order = RequestQueue(1, Limits(waiting=1)), []

        async def ask(name: str, *, is_first: bool) -> None:
            async with queue.slot(ME, 1, is_first=is_first):
                order.append(name)

        async with queue.slot(ME, 1):
            pieces = [asyncio.create_task(ask(f"piece {at}", is_first=False)) for at in range(3)]
            await asyncio.sleep(0)
            other = asyncio.create_task(ask("other", is_first=True))
            await asyncio.sleep(0)
            assert queue.waiting == 4
            with pytest.raises(QueueFullError):
                await ask("too many", is_first=True)
            # What was done of its request would be lost.
            last = asyncio.create_task(ask("last piece", is_first=False))
            await asyncio.sleep(0)
        await asyncio.gather(*pieces, other, last)
        assert order == ["piece 0", "piece 1", "piece 2", "other", "last piece"]
        assert (queue.running, queue.waiting, queue._order.lines) == (0, 0, {})

    run(work())


def test_slot_goes_to_the_first_that_waits_and_not_to_a_request_that_comes_just_then() -> None:
    async def work() -> None:
        queue, order = RequestQueue(1), []

        async def ask(name: str) -> None:
            async with queue.slot(ME, 1):
                order.append(name)
                await asyncio.sleep(0)

        async with queue.slot(ME, 1):
            waiting = [asyncio.create_task(ask(name)) for name in ("first", "second")]
            await asyncio.sleep(0)
        late = asyncio.create_task(ask("late"))
        await asyncio.gather(*waiting, late)
        assert order == ["first", "second", "late"]

    run(work())


@pytest.mark.parametrize("turns", range(5))
def test_user_who_leaves_when_the_slot_is_handed_over_does_no_work(turns: int) -> None:
    async def work() -> None:
        queue, finished = RequestQueue(1), False

        async def ask() -> None:
            nonlocal finished
            async with queue.slot(ME, 1):
                await asyncio.sleep(0.1)
                finished = True

        async with queue.slot(ME, 1):
            waiting = asyncio.create_task(ask())
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert (waiting.cancelled(), finished, queue.running, queue.waiting) == (True, False, 0, 0)

    run(work())


@settings(max_examples=50, deadline=None)
@given(
    slots=some.integers(1, 3),
    acts=some.lists(
        some.tuples(some.integers(0, 5), some.booleans(), some.sampled_from("abc"), some.integers(0, 900)),
        min_size=1,
        max_size=20,
    ),
)
def test_no_slot_is_lost_when_users_leave_at_any_moment(slots: int, acts: list[tuple[int, bool, str, int]]) -> None:
    async def work() -> None:
        queue, most = RequestQueue(slots, Limits(waiting=4)), 0
        taken: set[int] = set()

        async def ask(ticks: int, owner: str, cost: int) -> None:
            nonlocal most
            try:
                async with queue.slot(Share(owner, concurrency=2), cost) as turn:
                    assert turn.slot not in taken
                    taken.add(turn.slot)
                    most = max(most, queue.running)
                    try:
                        for _ in range(ticks):
                            await asyncio.sleep(0)
                    finally:
                        taken.discard(turn.slot)
                    turn.spend(ticks)
            except QueueFullError:
                pass

        tasks: list[asyncio.Task[None]] = []
        for ticks, leaves, owner, cost in acts:
            tasks.append(asyncio.create_task(ask(ticks, owner, cost)))
            await asyncio.sleep(0)
            if leaves:
                tasks[len(tasks) // 2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (queue.running, queue.waiting, queue._order.lines, taken) == (0, 0, {}, set())
        assert most <= slots

    run(work())
