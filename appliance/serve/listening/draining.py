"""The end of a gateway that another one follows: nobody is refused a connection, and no stream just stops.

Owns the order of the end. The listening socket belongs to systemd or the supervisor: connections that are not accepted
here wait in it for the gateway that follows.

Rules:
- at SIGTERM no further connection is accepted; those that were get `GRACE_S` in which their request may come. Each
  answer from then on closes its connection, so that a user connects anew;
- what is being answered gets `CUT_S` more. A stream that is not complete then ends with an error event, and what has
  not begun is refused with 503 and `Retry-After`;
- a user who does not read may lose a connection at the end, after `FINISH_S`.
"""

from __future__ import annotations

import asyncio
from types import FrameType

import uvicorn

GRACE_S = 0.8
CUT_S, FINISH_S = 4.0, 5
"""Seconds after the grace."""


class Ending:
    """How far the end of a gateway is.

    Attributes:
        is_near: whether each answer closes its connection.
        cut: set when answers that are not complete are to end.
    """

    def __init__(self) -> None:
        self.is_near = False
        self.cut = asyncio.Event()


class DrainingServer(uvicorn.Server):
    """The web server with this end.

    Args:
        config: see uvicorn.
        ending: shared with the application.
    """

    def __init__(self, config: uvicorn.Config, ending: Ending) -> None:
        super().__init__(config)
        self._ending = ending
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Serve until `handle_exit`."""
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; a second signal, or one before the start, ends at once."""
        if self._loop is None or self._ending.is_near:
            super().handle_exit(sig, frame)
            return
        self._ending.is_near = True
        self._loop.call_soon_threadsafe(self._drain, self._loop, sig)

    def _drain(self, loop: asyncio.AbstractEventLoop, sig: int) -> None:
        for server in self.servers:
            server.close()
        loop.call_later(GRACE_S, super().handle_exit, sig, None)
        loop.call_later(GRACE_S + CUT_S, self._ending.cut.set)
