"""Work on all cores is done whole, or ends with what went wrong; and the longest blobs come first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundles import parallel
from bundles.bundle import open_bundle
from bundles.chunks import check
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import Layout
from bundles.parallel import Helper, judge_all, work_off
from bundles.progress import Progress
from signing.floors import Floors
from tests.toy import NOW, build_toy


@pytest.fixture(params=[1, 2, 8])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(parallel, "_count", lambda: request.param)
    return int(request.param)


def test_everything_is_done_once(count: int) -> None:
    done: list[int] = []
    work_off(range(1000), done.append)
    assert sorted(done) == list(range(1000))


def test_what_goes_wrong_ends_the_rest_and_is_raised(count: int) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if number == 5:
            raise ValueError("the fifth")

    before = threading.active_count()
    with pytest.raises(ValueError, match="the fifth"):
        work_off(range(100_000), work)
    assert len(done) < 100_000
    assert threading.active_count() == before


def test_interrupt_is_raised_once_no_thread_works_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arrive while the caller's thread has nothing more to do than to wait."""
    begun, noticed, ended = threading.Event(), threading.Event(), threading.Event()
    main = threading.current_thread()

    def interrupt(_number: int, _frame: object) -> None:
        noticed.set()
        raise KeyboardInterrupt

    def work(_number: int) -> None:
        if threading.current_thread() is main:
            begun.wait()
            return
        begun.set()
        waits.wait()
        for _ in range(2):
            noticed.clear()
            os.kill(os.getpid(), signal.SIGINT)
            noticed.wait()
        ended.set()

    waits = threading.Event()

    class End(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    monkeypatch.setattr(parallel, "Event", End)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            work_off(range(2), work, threads=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()


def test_blobs_are_hashed_longest_first_and_every_byte_is_told(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, path = build_toy(tmp_path)
    bundle = open_bundle(path, workspace.root_file.read_bytes(), Floors(), NOW).value
    seen: list[int] = []
    real = check.check_blob

    def note(layout: Layout, chunk: Chunk, places: Sequence[str]) -> object:
        seen.append(chunk.size)
        return real(layout, chunk, places)

    monkeypatch.setattr(check, "check_blob", note)
    told: list[Progress] = []
    checked = check.check_blobs(Layout(path), bundle, told.append)
    assert sorted(seen, reverse=True) == seen or count > 1
    assert (len(seen), told[-1].done) == (checked.blobs, checked.size_bytes)
    assert [event.done for event in told] == sorted(event.done for event in told)


def test_what_is_said_stands_in_the_order_of_the_things_and_every_size_is_told_once(count: int) -> None:
    told: list[Progress] = []
    sizes = {number: number + 1 for number in reversed(range(200))}
    said = judge_all(sizes, lambda number: f"{number}" if number % 7 == 0 else None, "judging", told.append, "steps")
    assert list(said) == [number for number in sizes if number % 7 == 0]
    assert all(answer == f"{number}" for number, answer in said.items())
    assert [event.done for event in told] == sorted({event.done for event in told})
    assert {(event.task, event.total, event.unit) for event in told} == {("judging", sum(sizes.values()), "steps")}
    assert told[-1].done == sum(sizes.values())


def test_interrupt_that_does_not_wake_the_waiting_thread_is_noticed() -> None:
    """The system may give a signal to any thread: the one that waits sleeps on, and has to look by itself."""
    is_begun, is_over, ended = threading.Event(), threading.Event(), list[bool]()

    def work() -> None:
        is_begun.wait()
        time.sleep(0.05)  # until the other thread sleeps
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        ended.append(is_over.wait(10))

    helper = Helper(work)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            is_begun.set()
            helper.wait()
        assert ended == []  # and not only when the work has ended
    finally:
        is_over.set()
        helper.wait_wholly(deque())
