"""The same work on many things, on all cores.

Owns the threads. It exists because `concurrent.futures` loads a logging system, which costs a short command more than
all of its checks.

Rules:
- things are taken in their order, by whichever thread is free; the caller's thread works, too;
- the first exception ends it: no thread takes another thing, and it is raised once all have stopped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from threading import Thread
from typing import Callable, TypeVar

T = TypeVar("T")
_MOST = 8


def work_off(things: Iterable[T], work: Callable[[T], object]) -> None:
    """Do `work` on each thing.

    Args:
        things: taken from the first on.
        work: called by several threads at the same time.

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

    threads = [Thread(target=run) for _ in range(min(_count(), len(waiting)) - 1)]
    for thread in threads:
        thread.start()
    try:
        run()
    finally:
        waiting.clear()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _count() -> int:
    return max(1, min(_MOST, len(os.sched_getaffinity(0))))
