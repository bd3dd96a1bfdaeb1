"""The queue in front of one engine: a request for each slot, a bounded number that waits, and the rest refused.

Owns the order, which is that of arrival. Nobody waits without bound: an answer that comes too late is worse than a
refusal that states when to try again. The further pieces of requests that are being answered take no place from those
that come: else some long lists would keep everybody else out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from appliance.serve.sharing.share import Share, Turn

WAITING_PER_SLOT = 8
MAX_WAIT_S = 60.0
_FIRST_GUESS_S = 5.0
_MAX_RETRY_S = 120


class QueueFullError(Exception):
    """No other request may wait now.

    Args:
        retry_after_s: whole seconds after which another try makes sense.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class RequestQueue:
    """The queue of one engine.

    Args:
        slots: requests that the engine works on at once.
        max_waiting: requests that may wait for their first piece; None for `WAITING_PER_SLOT` for each slot.
        max_wait_s: seconds that each may wait.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        slots: int,
        max_waiting: int | None = None,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.max_waiting = slots * WAITING_PER_SLOT if max_waiting is None else max_waiting
        self.running = 0
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._first: set[asyncio.Future[None]] = set()
        self._usual_s = _FIRST_GUESS_S

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self, share: Share, cost: int, *, is_first: bool = True) -> AsyncIterator[Turn]:
        """Wait for a slot and hold it for the length of the block.

        Args:
            share: whose piece it is.
            cost: tokens that it counts for: an estimate, which `Turn.spend` corrects.
            is_first: whether this is the first piece of a request. The others wait their turn and are not refused: what
                was done of the request would be lost.

        Raises:
            QueueFullError: too many wait already, or this one has waited for `max_wait_s`.
        """
        await self._enter(is_first=is_first)
        began = self._clock()
        try:
            yield Turn(-1, False, cost)
        finally:
            # Recent answers count most: the guess follows the load within a few of them.
            self._usual_s += (self._clock() - began - self._usual_s) / 4
            self._leave()

    async def _enter(self, *, is_first: bool) -> None:
        if self.running < self.slots and not self._waiting:
            self.running += 1
            return
        if is_first and len(self._first) >= self.max_waiting:
            raise QueueFullError(self._retry_after_s())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if is_first:
            self._first.add(place)
        try:
            # Not `wait_for`: before Python 3.12 that drops a cancellation that comes just as the slot is handed over.
            await asyncio.wait({place}, timeout=self._max_wait_s if is_first else None)
        except BaseException:
            if place.done():
                self._leave()  # the slot was handed over in the same moment
            else:
                self._withdraw(place)
            raise
        if not place.done():
            self._withdraw(place)
            raise QueueFullError(self._retry_after_s())

    def _leave(self) -> None:
        # A slot goes straight to the first that waits, so that no request that comes just now can take it.
        if self._waiting:
            place = self._waiting.popleft()
            self._first.discard(place)
            place.set_result(None)
        else:
            self.running -= 1

    def _withdraw(self, place: asyncio.Future[None]) -> None:
        self._waiting.remove(place)
        self._first.discard(place)

    def _retry_after_s(self) -> int:
        return max(1, min(_MAX_RETRY_S, math.ceil(self._usual_s * (self.waiting + 1) / self.slots)))
