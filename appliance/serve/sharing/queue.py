"""The queue in front of one engine: a piece of work for each slot, a bounded number that waits, and the rest refused.

Owns the bounds; `fair_order` has the order, and `slots` the choice of a slot. Rules:
- nobody waits without bound: an answer that comes too late is worse than a refusal that states when to try again;
- one owner can fill only its part of the places where requests wait, so that its flood refuses its own requests;
- of `SHARED_FROM` slots or more, the last free one stays for another owner that has none and has asked within `KEPT_S`.
  An owner that has two or more does not get it;
- of so many slots, while another owner is at work or has asked within `ACTIVE_S`, one owner gets two. Where the busiest
  other one has more, it gets twice as many. Both times its weight;
- a step of an engine takes longer with each piece in it. So one answer is not slowed down by many of somebody who asks
  without pause, and two owners with much waiting use the whole engine;
- the further pieces of requests that are being answered take no place from those that come: else some long lists would
  keep everybody else out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from appliance.host.site.limits import USUAL_LIMITS, Limits
from appliance.serve.sharing.fair_order import FairOrder, Line, Place
from appliance.serve.sharing.share import Share, Turn
from appliance.serve.sharing.slots import Slots
from appliance.serve.sharing.work_rate import WorkRate

WAITING_PER_SLOT = 16
MAX_WAIT_S = 60.0
KEPT_S, ACTIVE_S, LOOK_S = 60.0, 20.0, 1.0
SHARED_FROM = 3
"""Slots from which on they are divided so: of two, one owner alone would leave half of the engine idle."""


class QueueFullError(Exception):
    """No other request may wait now.

    Args:
        retry_after_s: whole seconds after which another try makes sense.
        is_own: whether those that wait of the same owner are the reason.
    """

    def __init__(self, retry_after_s: int, *, is_own: bool = False) -> None:
        super().__init__(retry_after_s, is_own)
        self.retry_after_s = retry_after_s
        self.is_own = is_own


class RequestQueue:
    """The queue of one engine.

    Args:
        slots: pieces that the engine works on at once.
        limits: requests that may wait for their first piece; the defaults are `WAITING_PER_SLOT` for each slot, and a
            half of all for one owner.
        max_wait_s: seconds that each may wait.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        slots: int,
        limits: Limits = USUAL_LIMITS,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.max_waiting = limits.waiting or slots * WAITING_PER_SLOT
        self.max_waiting_each = min(self.max_waiting, limits.waiting_per_key or max(1, self.max_waiting // 2))
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._order = FairOrder()
        self._slots = Slots(slots)
        self._rate = WorkRate()
        self._seen: dict[str, float] = {}
        self._look: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """Pieces that the engine works on."""
        return self.slots - self._slots.free

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return self._order.waiting

    @property
    def tokens_per_s(self) -> float:
        """How fast the engine works, as measured by what it has done."""
        return self._rate.tokens_per_s

    @asynccontextmanager
    async def slot(
        self, share: Share, cost: int, prompt: bytes | None = None, *, is_first: bool = True
    ) -> AsyncIterator[Turn]:
        """Wait for a slot and hold it for the length of the block.

        Args:
            share: whose piece it is.
            cost: tokens that it counts for: an estimate, which `Turn.spend` corrects.
            prompt: the body for the engine, to find a slot that holds its beginning; None where it uses no slot's text.
            is_first: whether this is the first piece of a request. The others wait their turn and are not refused: what
                was done of the request would be lost.

        Raises:
            QueueFullError: too many wait already, or this one has waited for `max_wait_s`.
        """
        turn = await self._enter(share, max(1, cost), prompt, is_first=is_first)
        try:
            yield turn
        finally:
            self._leave(share, turn)

    def forget(self) -> None:
        """The engine holds no text any more, since it was started again."""
        self._slots.forget()

    async def _enter(self, share: Share, cost: int, prompt: bytes | None, *, is_first: bool) -> Turn:
        self._note(share.owner)
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        place = Place(share, cost, prompt, is_first, turn)
        self._order.add(place)
        self._start_next()
        if turn.done():
            return turn.result()
        if is_first:
            self._check_bounds(place)
        try:
            # Not `wait_for`: before Python 3.12 that drops a cancellation that comes just as the slot is handed over.
            await asyncio.wait({turn}, timeout=self._max_wait_s if is_first else None)
        except BaseException:
            if turn.done():
                turn.result().spend(0)
                self._leave(share, turn.result())  # the slot was handed over in the same moment
            else:
                self._order.withdraw(place)
            raise
        if not turn.done():
            self._order.withdraw(place)
            raise self._full(share, is_own=False)
        return turn.result()

    def _check_bounds(self, place: Place) -> None:
        share = place.share
        is_own = self._order.firsts(share.owner) > self.max_waiting_each
        if is_own or self._order.firsts() > self.max_waiting:
            self._order.withdraw(place)
            raise self._full(share, is_own=is_own)

    def _start_next(self) -> None:
        # A slot goes straight to the one whose turn it is, so that no request that comes just now can take it.
        while self._slots.free and (place := self._order.take_next(self._may_start)):
            self._rate.begin(self._clock(), is_idle=not self.running)
            number, is_warm = self._slots.take(place.share.owner, place.prompt)
            place.turn.set_result(Turn(number, is_warm, place.cost))
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._slots.free and self.waiting:
            # Time alone may let them start: what holds them back is how long ago others have asked.
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._start_next)

    def _leave(self, share: Share, turn: Turn) -> None:
        spent = turn.cost if turn.spent is None else turn.spent
        self._rate.end(self._clock(), spent)
        self._slots.give_back(turn.slot, is_read=turn.is_read)
        self._order.end(share.owner, turn.cost, spent)
        self._start_next()

    def _may_start(self, line: Line) -> bool:
        """Whether an owner may have another slot."""
        owner = line.share.owner
        if not line.may_start or not line.running or self.slots < SHARED_FROM:
            return line.may_start
        is_last = self._slots.free == 1 and line.running > 1
        if is_last and any(not self._order.running(name) for name in self._others(owner, KEPT_S)):
            return False
        busiest = self._order.busiest_other(owner)
        is_shared = busiest or self._others(owner, ACTIVE_S)
        return not is_shared or line.running < max(2, 2 * busiest) * line.share.weight

    def _note(self, owner: str) -> None:
        now = self._clock()
        self._seen[owner] = now
        for name in [name for name, at in self._seen.items() if now - at > KEPT_S]:
            del self._seen[name]

    def _others(self, owner: str, seconds: float) -> list[str]:
        """The other owners that have asked of late."""
        now = self._clock()
        return [name for name, at in self._seen.items() if name != owner and now - at <= seconds]

    def _full(self, share: Share, *, is_own: bool) -> QueueFullError:
        """The refusal, with the time until what waits now is done."""
        order = self._order
        own = order.waiting_tokens(share.owner) / order.part_of(share)
        return QueueFullError(self._rate.retry_after_s(own if is_own else order.waiting_tokens()), is_own=is_own)
