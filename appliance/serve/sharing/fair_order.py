"""The order of service at one engine: deficit round robin over those who wait, in tokens.

Owns whose turn is next. Rules:
- each owner has a line of pieces, in the order in which they came, and an account in tokens. A piece is paid for when
  it starts, by its estimate, and the difference is settled when it ends;
- in each round every owner that waits gets `QUANTUM` tokens for each unit of its weight. The first one in the round
  whose account covers its next piece is served. So owners that wait get tokens in proportion to their weights,
  whatever the number and length of their pieces;
- who does not wait gets nothing in a round, and saves nothing up; what it owes stays;
- work that kept nobody else waiting is free: it is paid back at its end.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.serve.sharing.share import Share, Turn

QUANTUM = 256
"""Tokens for each unit of weight and round. Smaller than most pieces: an order finer than a piece has no meaning."""
MAX_DEBT = 64 * QUANTUM
"""Tokens that an owner can owe beyond what is being done for it."""


@dataclass(eq=False, slots=True)
class Place:
    """A piece that waits.

    Args:
        share: whose it is.
        cost: estimated tokens, 1 or more.
        prompt: the body for the engine, to find a slot that holds its beginning; None where it uses no slot's text.
        is_first: whether it is the first piece of a request.
        turn: done when its turn has come.
    """

    share: Share
    cost: int
    prompt: bytes | None
    is_first: bool
    turn: asyncio.Future[Turn]


@dataclass(eq=False, slots=True)
class Line:
    """The pieces of one owner: those that wait, how many run and what these have paid; and its account."""

    share: Share
    places: deque[Place] = field(default_factory=deque)
    running: int = 0
    at_work: int = 0
    account: int = 0

    @property
    def may_start(self) -> bool:
        """Whether its next piece may start where a slot is free."""
        return bool(self.places) and not 0 < self.share.concurrency <= self.running

    @property
    def rounds_missing(self) -> int:
        """Rounds until its account covers its next piece."""
        missing = self.places[0].cost - self.account
        return max(0, math.ceil(missing / (QUANTUM * self.share.weight)))


class FairOrder:
    """Everybody that waits for, or works at, one engine."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self._round: deque[Line] = deque()

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return sum(len(line.places) for line in self._round)

    def running(self, owner: str) -> int:
        """Pieces of an owner that the engine works on."""
        line = self.lines.get(owner)
        return line.running if line else 0

    def busiest_other(self, owner: str) -> int:
        """The most pieces of any other owner that the engine works on."""
        return max((line.running for name, line in self.lines.items() if name != owner), default=0)

    def firsts(self, owner: str | None = None) -> int:
        """Requests that wait for their first piece.

        Args:
            owner: of one owner alone; None for all.
        """
        lines = [line for line in self._round if owner in (None, line.share.owner)]
        return sum(place.is_first for line in lines for place in line.places)

    def waiting_tokens(self, owner: str | None = None) -> int:
        """Estimated tokens of what waits.

        Args:
            owner: of one owner alone; None for all.
        """
        lines = [line for line in self._round if owner in (None, line.share.owner)]
        return sum(place.cost for line in lines for place in line.places)

    def part_of(self, share: Share) -> float:
        """The part of an engine that an owner gets while all that wait now go on waiting: above 0, at most 1."""
        others = sum(line.share.weight for line in self._round if line.share.owner != share.owner)
        return share.weight / (share.weight + others)

    def add(self, place: Place) -> None:
        """Let a piece wait, behind the others of its owner."""
        line = self.lines.setdefault(place.share.owner, Line(place.share))
        line.share = place.share
        if not line.places:
            self._round.append(line)
        line.places.append(place)

    def withdraw(self, place: Place) -> None:
        """Take out a piece that waits."""
        line = self.lines[place.share.owner]
        line.places.remove(place)
        self._settle(line)

    def take_next(self, may_start: Callable[[Line], bool] = lambda line: line.may_start) -> Place | None:
        """Take out the piece whose turn it is; its owner pays for it.

        Args:
            may_start: whether an owner may have another slot.

        Returns:
            None where nobody may start.
        """
        ready = [at for at, line in enumerate(self._round) if line.places and may_start(line)]
        if not ready:
            return None
        chosen = min(ready, key=lambda at: self._round[at].rounds_missing)
        line = self._round[chosen]
        if len(ready) > 1:
            rounds = line.rounds_missing
            for at in ready:
                # Those behind the chosen one have not had this round yet.
                passed = rounds if at <= chosen else max(0, rounds - 1)
                self._round[at].account += passed * QUANTUM * self._round[at].share.weight
        place = line.places.popleft()
        line.running += 1
        line.at_work += place.cost
        line.account -= place.cost
        # The round goes on with the chosen one, as long as its account covers its pieces.
        self._round.rotate(-chosen)
        if line.places and line.rounds_missing:
            self._round.rotate(-1)
        self._settle(line)
        return place

    def end(self, owner: str, cost: int, spent: int) -> None:
        """Let a piece of an owner end, and settle what it has cost.

        Args:
            owner: of the piece.
            cost: that it paid.
            spent: tokens of the engine's work.
        """
        line = self.lines[owner]
        line.running -= 1
        line.at_work -= cost
        has_others = any(other is not line for other in self._round)
        line.account += cost - spent if has_others else cost
        line.account = max(line.account, -line.at_work - MAX_DEBT)
        self._settle(line)

    def _settle(self, line: Line) -> None:
        if line.places:
            return
        line.account = min(line.account, 0)
        if line in self._round:
            self._round.remove(line)
        if not line.running and not line.account:
            self.lines.pop(line.share.owner, None)
        if not self._round:
            # Nobody waits for what is owed.
            self.lines = {owner: one for owner, one in self.lines.items() if one.running}
