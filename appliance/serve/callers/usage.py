"""How many tokens and requests each account has used today, and what is not written yet.

Owns the counts in memory, which quotas are measured against. Rules:
- a day is one of UTC. At midnight every account begins at 0;
- counts are kept by account, which is a public id: no name of a person is here;
- what waits to be written is summed by day and account, so that it stays small while a disk is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """What was used.

    Args:
        tokens_in: of prompts, and of texts to embed.
        tokens_out: of answers.
        requests: that an engine has answered, wholly or in part.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    requests: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that a quota counts."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: UsageCounts) -> UsageCounts:
        return UsageCounts(
            self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.requests + other.requests
        )


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one account used on one day.

    Args:
        day: of UTC.
        account: id of the first key of its owner.
        counts: what was used.
    """

    day: date
    account: str
    counts: UsageCounts


class Usage:
    """The counts of one gateway.

    Args:
        now: the clock, in UTC.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._today = now().date()
        self._counts: dict[str, UsageCounts] = {}
        self._pending: dict[tuple[date, str], UsageCounts] = {}
        self.totals: dict[str, UsageCounts] = {}
        """By account, since this gateway has started."""

    def add(self, account: str, counts: UsageCounts) -> None:
        """Count what an account has used."""
        day = self._roll()
        key = (day, account)
        self._counts[account] = self._counts.get(account, UsageCounts()) + counts
        self._pending[key] = self._pending.get(key, UsageCounts()) + counts
        self.totals[account] = self.totals.get(account, UsageCounts()) + counts

    def today(self, account: str) -> UsageCounts:
        """What an account has used today."""
        self._roll()
        return self._counts.get(account, UsageCounts())

    def seconds_to_midnight(self) -> int:
        """Whole seconds until every account begins at 0 again, from 1."""
        now = self._now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=timezone.utc) + timedelta(days=1)
        return max(1, int((midnight - now).total_seconds()) + 1)

    def take_pending(self) -> tuple[UsageRow, ...]:
        """Take what is not written yet; `put_back` returns it."""
        taken = tuple(UsageRow(day, account, counts) for (day, account), counts in self._pending.items())
        self._pending.clear()
        return taken

    def put_back(self, rows: Iterable[UsageRow]) -> None:
        """Keep rows that could not be written for the next time."""
        for row in rows:
            key = (row.day, row.account)
            self._pending[key] = row.counts + self._pending.get(key, UsageCounts())

    def follow(self, rows: Iterable[UsageRow]) -> None:
        """Take the counts of today that are written, also by a gateway before this one."""
        today = self._roll()
        written = {row.account: row.counts for row in rows if row.day == today}
        for (day, account), counts in self._pending.items():
            if day == today:
                written[account] = written.get(account, UsageCounts()) + counts
        self._counts = written

    def _roll(self) -> date:
        today = self._now().date()
        if today != self._today:
            self._today = today
            self._counts.clear()
        return today
