"""The queue in front of an engine: bounded in number and time, first come first served, and no slot is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from appliance.serve.sharing.queue import QueueFullError, RequestQueue
from appliance.serve.sharing.share import Share

ME = Share("me")


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


def test_time_to_try_again_follows_how_long_answers_take() -> None:
    async def work() -> None:
        clock = iter(range(0, 10_000, 100))
        queue = RequestQueue(2, max_waiting=0, clock=lambda: float(next(clock)))
        for _ in range(20):
            async with queue.slot(ME, 1):
                pass
        async with queue.slot(ME, 1), queue.slot(ME, 1):
            with pytest.raises(QueueFullError) as caught:
                async with queue.slot(ME, 1):
                    pass
        assert 45 <= caught.value.retry_after_s <= 51

    run(work())


def test_further_pieces_of_long_lists_keep_nobody_out() -> None:
    async def work() -> None:
        queue, order = RequestQueue(1, max_waiting=1), []

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
        assert (queue.running, queue.waiting, len(queue._first)) == (0, 0, 0)

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
    acts=some.lists(some.tuples(some.integers(0, 5), some.booleans()), min_size=1, max_size=20),
)
def test_no_slot_is_lost_when_users_leave_at_any_moment(slots: int, acts: list[tuple[int, bool]]) -> None:
    async def work() -> None:
        queue, most = RequestQueue(slots, max_waiting=4), 0

        async def ask(ticks: int) -> None:
            nonlocal most
            try:
                async with queue.slot(ME, 1):
                    most = max(most, queue.running)
                    for _ in range(ticks):
                        await asyncio.sleep(0)
            except QueueFullError:
                pass

        tasks = []
        for ticks, leaves in acts:
            tasks.append(asyncio.create_task(ask(ticks)))
            await asyncio.sleep(0)
            if leaves:
                tasks[len(tasks) // 2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (queue.running, queue.waiting) == (0, 0)
        assert most <= slots

    run(work())
