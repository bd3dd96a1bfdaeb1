"""What the gateway knows of its callers beside their keys: usage, quotas, and requests that a key began.

Owns the tasks that run beside the requests: writing usage, and watching keys. A full or slow disk never delays or
refuses a request; quotas then hold in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path

from appliance.events import USAGE_UNWRITTEN, Event, OnEvent, ignore
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.key_watch import KeyWatch
from appliance.serve.callers.usage import Usage, UsageRow
from appliance.serve.callers.usage_file import UsageFile

WRITE_S = 2.0
"""Between two writes of usage. A gateway that is killed forgets what it counted since the last one."""


class Books:
    """The books of one gateway.

    Args:
        now: the clock, in UTC.
        file: where usage is written; None for memory alone.
        report: gets what somebody may have to account for.
    """

    def __init__(self, now: Callable[[], datetime], file: Path | None = None, report: OnEvent = ignore) -> None:
        self.usage = Usage(now)
        self.watch = KeyWatch()
        self.report = report
        self._now = now
        self._file = None if file is None else UsageFile(file)
        self._is_unwritten = False

    @asynccontextmanager
    async def running(self, access: AccessStore) -> AsyncIterator[None]:
        """Write usage and watch keys for the length of the block."""
        await self._read()
        is_over = asyncio.Event()
        watching = asyncio.create_task(self.watch.run(access, self._now))
        writing = asyncio.create_task(self._keep_writing(is_over))
        try:
            yield
        finally:
            watching.cancel()
            # Never cancelled: the thread that writes would go on, and its rows would be written once more.
            is_over.set()
            await asyncio.gather(watching, writing, return_exceptions=True)
            await self.write()

    async def write(self) -> None:
        """Write what is not written yet; it stays for the next time where that fails."""
        file = self._file
        if file is None or not file.is_kept:
            return
        rows = self.usage.take_pending()
        if not rows:
            return
        try:
            await asyncio.to_thread(file.add, rows, self._now().date())
        except (sqlite3.Error, OSError) as error:
            self.usage.put_back(rows)
            if not self._is_unwritten:
                self.report(Event(USAGE_UNWRITTEN, {"reason": type(error).__name__}))
            self._is_unwritten = True
        else:
            self._is_unwritten = False
            await self._read()

    async def days(self, since: date) -> tuple[UsageRow, ...]:
        """What is written of every account since a day; none where that cannot be read."""
        if self._file is None:
            return ()
        with contextlib.suppress(sqlite3.Error, OSError):
            return await asyncio.to_thread(self._file.read, since)
        return ()

    async def _read(self) -> None:
        file, today = self._file, self._now().date()
        if file is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            self.usage.follow(await asyncio.to_thread(file.read, today))

    async def _keep_writing(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(is_over.wait(), WRITE_S)
            await self.write()
