"""Lanes run at the same time, few of them; what ends one by an interrupt ends all."""

from __future__ import annotations

import os
import signal
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.transfer import TURN_BYTES
from bundles.oci.layout import Layout, blob_path
from bundles.progress import ignore
from bundles.stick.writing.blob_batches import write_blobs
from bundles.stick.writing.lanes import MAX_LANES, run_lanes
from bundles.stick.writing.pace import Pace
from signing.digest import sha256
from tests.sim.sticks import Data, SimStick, plugged

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


def test_eight_sticks_take_four_mebibytes_each(tmp_path: Path) -> None:
    """All are at their first block at the same time; the bound of the whole program is 200 MB."""
    size, stored = 12 << 20, tmp_path / "blob"
    with stored.open("wb") as file:
        file.truncate(size)
    chunk = Chunk(sha256(bytes(size)), size)
    source = mock.Mock(open_chunk=lambda _: os.open(stored, os.O_RDONLY))
    meeting = threading.Barrier(MAX_LANES, timeout=WAIT_S)

    class Meeting(SimStick):
        def take(self, data: Data) -> tuple[Data, OSError | None]:
            meeting.wait()
            return super().take(data)

    sticks = [tmp_path / str(number) for number in range(MAX_LANES)]
    for stick in sticks:
        stick.mkdir()
    with plugged(*map(Meeting, sticks)):
        tracemalloc.start()
        try:
            run_lanes(
                [[Layout(stick)] for stick in sticks],
                lambda stick, pace: write_blobs(source, stick, [chunk], ignore, pace),
            )
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert all((stick / blob_path(chunk.sha256)).stat().st_size == size for stick in sticks)
    assert MAX_LANES * TURN_BYTES <= peak < MAX_LANES * TURN_BYTES + (2 << 20)
