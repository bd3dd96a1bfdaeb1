"""How many threads an engine gets: chosen by a measurement, and kept until the machine or its load is another.

Owns the choice and its record. An engine cannot change its number of threads while it runs, and does not know what else
will run beside it. So each number is measured alone and beside a second load (`appliance.host.machine.thread_trial`).
The best one is that with the largest product of both rates. One that collapses beside a load does not win by being
faster alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.machine import thread_trial
from appliance.host.machine.cpu import cpu_identity
from appliance.host.machine.threads import thread_count

MEASURED, COUNTED, FIXED = "measured", "counted", "fixed by site.yaml"
RECORD = "threads.json"
_TIMEOUT_S = 20.0
_MAX_BYTES = 64 << 10
_OTHER_LOAD = 4
"""A load that differs by more than one core, and by more than this part of all cores, is another one."""

Rates = Mapping[int, tuple[float, float]]
"""Pieces of work in a second, by the number of threads: alone, and beside a second load."""


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """How many threads an engine gets.

    Args:
        threads: at least 1.
        how: `MEASURED`, `COUNTED` by the cores of the machine, or `FIXED`.
        rates: of the numbers that were measured; none where nothing was.
        load: of the machine at that time, as the kernel's average of one minute.
        key: another text means another machine.
    """

    threads: int
    how: str = COUNTED
    rates: Rates = field(default_factory=dict)
    load: float = 0.0
    key: str = ""

    def describe(self) -> str:
        """The choice for people: `1, measured (1: 1900 alone, 900 beside a load; 2: 99, 270)`."""
        rows = "; ".join(f"{count}: {alone:.0f} alone, {beside:.0f} beside" for count, (alone, beside) in self._rows())
        return f"{self.threads}, {self.how}" + (f" ({rows})" if rows else "")

    def _rows(self) -> list[tuple[int, tuple[float, float]]]:
        return sorted(self.rates.items())


def choose_threads(folder: Path, measure: Callable[[Sequence[int]], Rates] | None = None) -> ThreadChoice:
    """Choose the number of threads for an engine of this machine.

    Args:
        folder: where the choice is kept; one that cannot be written means a measurement at each start.
        measure: measures some numbers of threads; None for the program of this package.

    Returns:
        The kept choice where the machine is the same and its load is similar, else one that is measured now. What
        cannot be measured is counted: one core less than this process may use, where those are more than two.
    """
    most, load = thread_count(), os.getloadavg()[0]
    if most == 1:
        return ThreadChoice(1)
    record, key = folder / RECORD, _key(most)
    found = read_choice(folder)
    if found is not None and is_of_this_machine(found, key, most) and not _is_other_load(found.load, load):
        return found
    with _alone(folder):
        # Another engine may have measured while this one waited: two measurements would disturb each other.
        latest = read_choice(folder)
        if latest is not None and latest != found and is_of_this_machine(latest, key, most):
            return latest
        made = best_of((measure or _measure)(candidates(most)), most, load, key)
        if made.how == MEASURED:
            with contextlib.suppress(OSError):
                write_file(record, json.dumps(asdict(made)).encode() + b"\n")
        return made


def is_of_this_machine(found: ThreadChoice, key: str, most: int) -> bool:
    """Whether a kept choice may be used. An engine that was taken over can write the record, too.

    Args:
        found: from the record.
        key: of this machine.
        most: the largest number that this machine may use.
    """
    return found.key == key and set(found.rates) == set(candidates(most))


def candidates(most: int) -> tuple[int, ...]:
    """The numbers that are measured: parts of the largest, and those just below it."""
    return tuple(
        sorted({max(1, count) for count in (1, most // 4, most // 2, 3 * most // 4, most - 2, most - 1, most)})
    )


def best_of(rates: Rates, most: int, load: float = 0.0, key: str = "") -> ThreadChoice:
    """Choose by measured rates.

    Args:
        rates: untrusted; a number without any rate is left out.
        most: the choice where nothing was measured.
        load, key: see `ThreadChoice`.
    """
    scores = {count: math.sqrt(alone * beside) for count, (alone, beside) in rates.items()}
    best = max(scores, key=lambda count: (scores[count], -count), default=0)
    if not best or scores[best] <= 0:
        return ThreadChoice(most)
    return ThreadChoice(best, MEASURED, rates, round(load, 2), key)


def read_choice(folder: Path) -> ThreadChoice | None:
    """Read the kept choice; None where there is none, or something that is none."""
    try:
        with (folder / RECORD).open("rb") as file:
            value = json.loads(file.read(_MAX_BYTES))
        rates = _read_rates(value["rates"])
        found = best_of(rates, 0, float(value["load"]), str(value["key"]))
        # The number follows from the rates: nothing else in the record can set it.
        return found if found.how == MEASURED else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _measure(counts: Sequence[int]) -> Rates:
    words = [sys.executable, "-I", "-S", "-B", thread_trial.__file__, *map(str, counts)]
    try:
        done = subprocess.run(words, env={}, capture_output=True, timeout=_TIMEOUT_S, check=True)
        rates = _read_rates(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError):
        return {}
    return rates if set(rates) == set(counts) else {}


def _read_rates(value: object) -> Rates:
    if not isinstance(value, dict):
        raise TypeError("no rates")
    found = {int(count): (float(alone), float(beside)) for count, (alone, beside) in value.items()}
    if not all(count >= 1 and all(0 <= rate < math.inf for rate in pair) for count, pair in found.items()):
        raise ValueError("no rates")
    return found


def _key(most: int) -> str:
    return hashlib.sha256(f"{most}\n{os.cpu_count()}\n{cpu_identity()}".encode()).hexdigest()


def _is_other_load(before: float, now: float) -> bool:
    return abs(before - now) > max(1.0, (os.cpu_count() or 1) / _OTHER_LOAD)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock for the length of the block, where the folder can have one."""
    try:
        descriptor = os.open(folder / f"{RECORD}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
