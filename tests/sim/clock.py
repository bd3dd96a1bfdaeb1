"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class SimClock:
    """A wall clock and a steady one; setting the first leaves the second alone, as on a real machine.

    Args:
        start: what the wall clock shows, in UTC.
        step_s: by how much both move whenever somebody looks.
    """

    def __init__(self, start: datetime, step_s: float = 0.0) -> None:
        self._wall = start
        self._steady_s = 0.0
        self._step_s = step_s

    def __call__(self) -> datetime:
        """The wall clock."""
        self.pass_time(self._step_s)
        return self._wall

    def monotonic(self) -> float:
        """The steady clock, in seconds."""
        self.pass_time(self._step_s)
        return self._steady_s

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += timedelta(seconds=seconds)
        self._steady_s += seconds

    def set(self, moment: datetime) -> None:
        """Set the wall clock, forward or back."""
        self._wall = moment
