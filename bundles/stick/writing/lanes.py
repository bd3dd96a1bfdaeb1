"""Fills several sticks at the same time: one thread for each disk, and the sticks of one disk one after the other.

Owns the threads of `stick write`. A lane is the sticks of one disk.

Rules:
- at most 8 lanes run at the same time; the others follow as soon as one is done;
- a fault of one stick is its own: the others go on. Anything else, such as an interrupt, ends all;
- an interrupt arrives in the thread that waits. Each lane ends before its next block, and nothing goes on afterwards;
- where several lanes run, each has one thread, and one block of the source is read at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Generic, TypeVar

from bundles.parallel import Helper
from bundles.stick.writing.pace import Pace

T = TypeVar("T")
MAX_LANES = 8


def run_lanes(lanes: Sequence[Sequence[T]], work: Callable[[T, Pace], object]) -> None:
    """Do `work` on each thing of each lane.

    Args:
        lanes: things of one lane are done one after the other.
        work: keeps to itself what concerns one thing alone. What it raises ends everything.

    Raises:
        BaseException: what was raised first.
    """
    running = _Lanes(lanes, work)
    helpers = [Helper(running.run) for _ in range(min(MAX_LANES, len(lanes)))]
    try:
        for helper in helpers:
            helper.start()
        for helper in helpers:
            helper.wait()
    except BaseException as error:  # noqa: BLE001 - raised below, when every lane has ended
        running.end(error)
        for helper in helpers:
            helper.wait_wholly(running.failures)
    if running.failures:
        raise running.failures[0]


class _Lanes(Generic[T]):
    """The lanes that have yet to be done, shared by all threads."""

    def __init__(self, lanes: Sequence[Sequence[T]], work: Callable[[T, Pace], object]) -> None:
        self.failures = deque[BaseException]()
        self._waiting = deque(lanes)
        self._work = work
        self._stop = Event()
        several = len(lanes) > 1
        self._pace = Pace(1 if several else None, Lock() if several else None, self.require_going)

    def require_going(self) -> None:
        """End this thread where another one has ended everything."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    def end(self, error: BaseException) -> None:
        """End everything."""
        self.failures.append(error)
        self._waiting.clear()
        self._stop.set()

    def run(self) -> None:
        try:
            while True:
                try:
                    lane = self._waiting.popleft()
                except IndexError:
                    return
                for thing in lane:
                    self.require_going()
                    self._work(thing, self._pace)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that asked
            self.end(error)
