"""Runs the same work on many things, on all cores.

Owns the threads. It exists because `concurrent.futures` loads a logging system, which costs a short command more than
all of its checks.

Rules:
- things are taken in their order, by whichever thread is free; the caller's thread works, too;
- the first exception ends it: no thread takes another thing, and it is raised once all have stopped;
- an interrupt ends it in the same way: nothing goes on in a thread after the call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from threading import Event, Lock, Thread
from typing import Callable, TypeVar

from bundles.progress import OnProgress, Progress

K = TypeVar("K")
T = TypeVar("T")
_MAX_THREADS = 8
_MAX_COPY_THREADS = 4
_LOOK_AGAIN_S = 0.2


def work_off(things: Iterable[T], work: Callable[[T], object], threads: int | None = None) -> None:
    """Do `work` on each thing.

    Args:
        things: taken from the first on.
        work: called by several threads at the same time.
        threads: how many at most, at least 1; None for one per core.

    Raises:
        BaseException: what `work` raised first.
    """
    waiting, failures = deque(things), deque[BaseException]()

    def run() -> None:
        try:
            while True:
                try:
                    thing = waiting.popleft()
                except IndexError:
                    return
                work(thing)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)
            waiting.clear()

    helpers = [Helper(run) for _ in range(min(threads or _count(), len(waiting)) - 1)]
    try:
        for helper in helpers:
            helper.start()
        run()
    finally:
        waiting.clear()
        for helper in helpers:
            helper.wait_wholly(failures)
    if failures:
        raise failures[0]


class Helper:
    """A thread whose end is waited for, however often somebody interrupts.

    `Thread.join` does not do: until Python 3.13, an interrupted `join` marks a thread that runs as ended.

    Args:
        work: keeps what it raises to itself.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._thread = Thread(target=self._run)
        self._is_begun = False
        self._ended = Event()

    def start(self) -> None:
        """Begin the work.

        Raises:
            RuntimeError: the system has no thread more.
        """
        self._is_begun = True
        try:
            self._thread.start()
        except RuntimeError:
            self._is_begun = False
            raise

    def wait(self) -> None:
        """Wait for its end; an interrupt ends the wait, and not the work."""
        # A signal that arrives just before the wait begins does not wake it: the interpreter looks again after each.
        while self._is_begun and not self._ended.wait(_LOOK_AGAIN_S):
            pass

    def wait_wholly(self, failures: deque[BaseException]) -> None:
        """Wait for its end: the caller may close its files then.

        Args:
            failures: gets each interrupt that arrives meanwhile.
        """
        while self._is_begun and not self._ended.is_set():
            try:
                self.wait()
            except BaseException as error:  # noqa: BLE001 - raised by the caller, as any other
                failures.append(error)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()


def judge_all(
    things: Mapping[K, int],
    judge: Callable[[K], T | None],
    task: str,
    on_progress: OnProgress,
    unit: str = "bytes",
    threads: int | None = None,
) -> dict[K, T]:
    """Check each thing by itself, and report how much is done.

    Args:
        things: each with its size in `unit`; taken from the first on.
        judge: called by several threads at the same time; None where there is nothing to report.
        task, unit: of `Progress`.
        on_progress: called in any thread, one call at a time.
        threads: of `work_off`.

    Returns:
        What was reported, in the order of the things.

    Raises:
        BaseException: what `judge` raised first.
    """
    total, done, lock = sum(things.values()), 0, Lock()
    said: dict[K, T] = {}

    def work(thing: K) -> None:
        nonlocal done
        answer = judge(thing)
        with lock:
            if answer is not None:
                said[thing] = answer
            done += things[thing]
            on_progress(Progress(task, done, total, unit))

    work_off(things, work, threads)
    return {thing: said[thing] for thing in things if thing in said}


def copy_threads() -> int:
    """How many threads copy: two at least, so that one reads while the other hashes; few, since a medium is one."""
    return max(2, min(_MAX_COPY_THREADS, _count()))


def _count() -> int:
    return max(1, min(_MAX_THREADS, len(os.sched_getaffinity(0))))
