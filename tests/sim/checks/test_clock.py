"""The simulated clock does what tests rely on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tests.sim.clock import EPOCH, SimClock

START = datetime(2026, 1, 2, tzinfo=timezone.utc)


def test_time_stands_still_until_it_is_moved() -> None:
    clock = SimClock(START)
    assert clock() == clock() == START
    clock.pass_time(90)
    assert clock() == START + timedelta(seconds=90)


def test_setting_the_wall_clock_leaves_the_steady_one_alone() -> None:
    clock = SimClock(START)
    clock.pass_time(5)
    clock.set(EPOCH)
    assert (clock(), clock.monotonic()) == (EPOCH, 5)


def test_each_look_may_cost_time() -> None:
    clock = SimClock(START, step_s=1)
    assert clock() < clock()
    assert clock.monotonic() < clock.monotonic()
