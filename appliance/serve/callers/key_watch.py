"""Ending what a key began, once the key ends (threat T37).

Owns the list of requests that are being answered, by key. Rules:
- the keys of these requests are looked up again every `POLL_S`. A key that was revoked, or has expired, ends them all;
- a database that another process locks is asked again at the next turn. One that is gone or damaged ends every
  request: whose they are is not known any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from appliance.host.site.api_keys import AccessStore, Key
from signing.errors import ApplianceError, BusyError

POLL_S = 0.25


class KeyWatch:
    """Watches the keys of requests that are being answered."""

    def __init__(self) -> None:
        self._open: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def follow(self, key: Key) -> Iterator[asyncio.Event]:
        """For the length of the block, an event that is set when the key ends."""
        ended = asyncio.Event()
        self._open.setdefault(key.id, set()).add(ended)
        try:
            yield ended
        finally:
            self._open[key.id].discard(ended)
            if not self._open[key.id]:
                del self._open[key.id]

    async def run(self, access: AccessStore, now: Callable[[], datetime]) -> None:
        """Look keys up again and again, until cancelled.

        Args:
            access: the keys of this host.
            now: the clock, in UTC.
        """
        while True:
            await asyncio.sleep(POLL_S)
            if self._open:
                await self.look(access, now())

    async def look(self, access: AccessStore, now: datetime) -> None:
        """Look the keys up once, and end what belongs to those that are not valid."""
        watched = tuple(self._open)
        try:
            valid = await asyncio.to_thread(access.valid, watched, now)
        except BusyError:
            return
        except (ApplianceError, OSError):
            valid = frozenset()
        for key_id in watched:
            if key_id not in valid:
                for ended in self._open.get(key_id, ()):
                    ended.set()
