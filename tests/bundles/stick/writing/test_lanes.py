"""Lanes run at the same time, few of them; what ends one by an interrupt ends all."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence

import pytest

from bundles.stick.writing.lanes import MAX_LANES, run_lanes
from bundles.stick.writing.pace import Pace

WAIT_S = 30
"""Never waited for: a test that needs it fails."""


class Counter:
    """How many are inside at the same time, at most."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def test_all_lanes_run_at_the_same_time_and_one_lane_in_its_order() -> None:
    meeting, done = threading.Barrier(3, timeout=WAIT_S), list[str]()

    def work(thing: str, _pace: Pace) -> None:
        if thing.endswith("1"):
            meeting.wait()
        done.append(thing)

    run_lanes([["a1", "a2"], ["b1"], ["c1", "c2", "c3"]], work)
    assert [thing for thing in done if thing.startswith("c")] == ["c1", "c2", "c3"]
    assert len(done) == 6


def test_more_lanes_than_the_limit_are_done_too() -> None:
    inside, done, meeting = Counter(), list[int](), threading.Barrier(MAX_LANES, timeout=WAIT_S)

    def work(thing: int, _pace: Pace) -> None:
        with inside:
            meeting.wait()
            done.append(thing)

    run_lanes([[number] for number in range(2 * MAX_LANES)], work)
    assert (sorted(done), inside.most) == (list(range(2 * MAX_LANES)), MAX_LANES)


def paces(lanes: Sequence[Sequence[int]]) -> list[Pace]:
    found: list[Pace] = []
    run_lanes(lanes, lambda _, pace: found.append(pace))
    return found


def test_a_lane_alone_has_no_limits_and_several_take_turns_at_the_source() -> None:
    assert all((pace.threads, pace.turn) == (None, None) for pace in paces([[1, 2]]))
    several = paces([[1], [2], [3]])
    assert {pace.threads for pace in several} == {1}
    assert len({id(pace.turn) for pace in several}) == 1
    assert several[0].turn is not None


def test_what_is_raised_ends_every_lane_and_is_raised_at_last() -> None:
    meeting, ended = threading.Barrier(3, timeout=WAIT_S), list[int]()

    def work(thing: int, pace: Pace) -> None:
        meeting.wait()
        if thing == 1:
            raise ZeroDivisionError
        try:
            while True:
                pace.require_going()
        finally:
            ended.append(thing)

    with pytest.raises(ZeroDivisionError):
        run_lanes([[1, 10], [2, 20], [3, 30]], work)
    assert sorted(ended) == [2, 3]


def test_an_interrupt_ends_every_lane_before_its_next_block() -> None:
    meeting, ended = threading.Barrier(2, timeout=WAIT_S), list[int]()

    def work(thing: int, pace: Pace) -> None:
        if meeting.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                pace.require_going()
        finally:
            ended.append(thing)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_lanes([[1, 10], [2, 20]], work)
    assert (sorted(ended), threading.active_count()) == ([1, 2], before)
