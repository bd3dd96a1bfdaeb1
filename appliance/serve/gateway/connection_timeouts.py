"""How long the gateway waits for whoever connected to it (threat T37).

Owns the two ends of patience with a connection, which the web server does not have. Rules:
- one on which no request is being answered is closed after `IDLE_S`, whatever part of a request has come by then;
- one whose user does not take what was written for him is cut after `STALLED_S`, and the work on his answer ends.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_S = 30
STALLED_S = 60


class PatientProtocol(H11Protocol):
    """One connection."""

    _idle: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, which may be here already."""
        self._await_request()
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Begin to wait until the user has read."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stop waiting for the user to read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        for timer in (self._idle, self._stalled):
            if timer is not None:
                timer.cancel()

    def _await_request(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(IDLE_S, self._leave)

    def _await_reader(self) -> None:
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def _look(self) -> None:
        is_asked = self.cycle is not None and not self.cycle.response_complete
        if is_asked and self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _leave(self) -> None:
        self.transport.close()
        # What was written may not have been read yet; the kernel would keep it for as long as the user likes.
        self._await_reader()
