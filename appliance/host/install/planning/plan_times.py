"""How long the steps of an install will take, in seconds.

Owns the rates, and the reading of earlier times from the journal. A time that this host has recorded counts more than
a rate; which of both it is stands beside each time.

Rules:
- the journal's times have whole seconds, of a clock that may have been set: what is negative or longer than a day does
  not count;
- copying depends on the size, so it is always computed by the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from appliance.host.change.journal import DONE, STARTED, JournalEntry

RECORDED, BY_RATE = "recorded", "rate"
COPIED_PER_S = 150_000_000
"""Bytes that a copy reads from a stick, hashes and writes in one second."""
LOADED_PER_S = 500_000_000
"""Bytes of a model that an engine reads and verifies in one second."""
_SECONDS = {
    "plan": 1,
    "preflight": 1,
    "packages": 2,
    "bootstrap": 1,
    "environment": 3,
    "runtime": 8,
    "render": 3,
    "switch": 1,
    "gate": 2,
    "commit": 1,
}
_START_S = 2
_ONCE = ("bootstrap", "environment", "runtime")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class StepForecast:
    """How long a step will take: its name, whole seconds, and `recorded` or `rate`."""

    step: str
    seconds: int
    how: str


def forecast(
    entries: Sequence[JournalEntry], copied_bytes: int, model_bytes: int, *, is_complete: bool
) -> tuple[StepForecast, ...]:
    """Estimate the times of an install.

    Args:
        entries: of the journal, oldest first; none on a fresh host.
        copied_bytes: what is copied from the media.
        model_bytes: what the engines of the new release load.
        is_complete: whether the release is complete here, so that its environment is not made again.
    """
    known = recorded(entries)
    found = []
    for step in (*_SECONDS, "candidate"):
        if is_complete and step in _ONCE:
            continue
        by_rate = _SECONDS.get(step, _START_S + _up(model_bytes, LOADED_PER_S))
        seconds, how = (known[step], RECORDED) if step in known else (by_rate, BY_RATE)
        found.append(StepForecast(step, seconds, how))
    found.insert(2, StepForecast("import", _up(copied_bytes, COPIED_PER_S), BY_RATE))
    return tuple(found)


def total_seconds(times: Sequence[StepForecast]) -> int:
    """The time of all steps together."""
    return sum(one.seconds for one in times)


def downtime_seconds(times: Sequence[StepForecast]) -> int:
    """The time of a window: the new engines start after the old ones have ended, then the gate."""
    return sum(one.seconds for one in times if one.step in ("candidate", "switch", "gate"))


def recorded(entries: Sequence[JournalEntry]) -> dict[str, int]:
    """The newest time of each step that was done, by the step's name."""
    found: dict[str, int] = {}
    begun: JournalEntry | None = None
    for entry in entries:
        if entry.state == STARTED:
            begun = entry
            continue
        if begun and entry.state == DONE and (begun.release, begun.step) == (entry.release, entry.step):
            seconds = _between(begun.time, entry.time)
            if seconds is not None:
                found[entry.step] = seconds
        begun = None
    return found


def _between(first: str, last: str) -> int | None:
    try:
        seconds = int((_moment(last) - _moment(first)).total_seconds())
    except ValueError:
        return None
    # A step that began and ended in the same second took a part of one.
    return max(1, seconds) if 0 <= seconds < _DAY_S else None


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def _up(size: int, per_s: int) -> int:
    return -(-size // per_s)
