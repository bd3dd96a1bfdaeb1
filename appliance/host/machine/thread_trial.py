"""A program that measures how fast some numbers of threads work together, alone and beside a second load.

Owns the measurement, not the choice (`appliance.host.machine.threads`). It needs no model and no runtime. Its workers
share out a piece of work, and then wait for each other by spinning, piece by piece. The threads of llama.cpp do the
same, so a number that is too large for this machine collapses here as there. As a program it needs nothing but Python's
own modules. It prints the rates as JSON: for each number, pieces in a second alone and beside the second load.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

MEASURE_S = 0.1
WORK_BYTES = 256 << 10
"""Of one piece, for all workers together; hashing it takes some tenths of a millisecond."""
_START_S = 2.0
"""Within which all workers must have begun; a number for which they have not counts as 0."""
_SPINS = 2048


def main(arguments: list[str]) -> None:
    """Print the rates of some numbers of threads.

    Args:
        arguments: the numbers.
    """
    counts = [int(text) for text in arguments]
    alone = {count: measure(count) for count in counts}
    with busy_program():
        beside = {count: measure(count) for count in counts}
    print(json.dumps({str(count): [alone[count], beside[count]] for count in counts}))  # noqa: T201 - its only output


def measure(count: int, duration_s: float = MEASURE_S) -> float:
    """Measure how many pieces of work some workers finish in a second.

    Args:
        count: of workers.
        duration_s: of the measurement, in seconds, after all workers have begun.
    """
    with mmap.mmap(-1, 8 * (count + 1)) as memory:
        done = memoryview(memory).cast("Q")  # pieces of each worker, and at the end whether to stop
        until = time.monotonic() + _START_S + 10 * duration_s
        workers = [_fork(lambda index=index: _work(done, index, count, until)) for index in range(count)]
        try:
            while min(done[:count].tolist()) < 1:
                if time.monotonic() > until - 10 * duration_s:
                    return 0.0
                time.sleep(0.001)
            before, began = done[0], time.monotonic()
            time.sleep(duration_s)
            after, ended = done[0], time.monotonic()
            return float(round((after - before) / (ended - began), 1))
        finally:
            done[count] = 1
            for worker in workers:
                os.waitpid(worker, 0)
            done.release()


@contextmanager
def busy_program() -> Iterator[None]:
    """Run a second load for the length of the block: one program that takes one core."""
    with mmap.mmap(-1, 8) as memory:
        stop = memoryview(memory).cast("Q")
        until = time.monotonic() + 60.0
        program = _fork(lambda: _spin(stop, until))
        try:
            yield
        finally:
            stop[0] = 1
            os.waitpid(program, 0)
            stop.release()


def _work(done: memoryview, index: int, count: int, until: float) -> None:
    data = bytes(WORK_BYTES // count)
    pieces = 0
    while not done[count] and time.monotonic() < until:
        hashlib.sha256(data)
        pieces += 1
        done[index] = pieces
        for other in range(count):
            spins = 0
            while done[other] < pieces and not done[count]:
                spins += 1
                if spins % _SPINS == 0 and time.monotonic() > until:
                    return


def _spin(stop: memoryview, until: float) -> None:
    while not stop[0] and time.monotonic() < until:
        for _ in range(_SPINS):
            pass


def _fork(work: object) -> int:
    process = os.fork()
    if process == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    return process


if __name__ == "__main__":
    main(sys.argv[1:])
