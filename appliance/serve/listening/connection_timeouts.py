"""Timeouts of connections to the gateway (threat T37).

Owns the two timeouts that the web server does not have. Rules:
- a connection on which no request is being answered is closed after `IDLE_S`, whatever part of a request has come;
- one whose user does not read what was written is cut after `STALLED_S`, and the work on the answer ends.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.serve.listening.client_certificates import STATE, client_name
from appliance.serve.listening.crowding import Crowd

IDLE_S = 30
STALLED_S = 60
UNREAD_BYTES = 64 << 10
"""How much of an answer may wait for its user before the engine has to wait."""


class TimeoutProtocol(H11Protocol):
    """One connection, with both timeouts, and its place in the crowd of all connections."""

    crowd = Crowd()
    _number = -1
    _idle: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._number = transport.get_extra_info("socket").fileno()
        # With TLS, asyncio would keep eight times as much for a user who does not read.
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        # Each request of this connection gets a copy of it.
        self.app_state = {**self.app_state, STATE: client_name(transport.get_extra_info("ssl_object"))}
        self._start_idle_timer()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._stop_idle_timer_if_busy()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, which may be here already."""
        self.crowd.rest(self._number)
        self._start_idle_timer()
        super().on_response_complete()
        self._stop_idle_timer_if_busy()

    def pause_writing(self) -> None:
        """Begin to wait until the user has read."""
        super().pause_writing()
        self._start_stalled_timer()

    def resume_writing(self) -> None:
        """Stop waiting for the user to read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        super().connection_lost(exc)
        self.crowd.leave(self._number)
        for timer in (self._idle, self._stalled):
            if timer is not None:
                timer.cancel()

    def _start_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(IDLE_S, self._close)

    def _start_stalled_timer(self) -> None:
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def _stop_idle_timer_if_busy(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            return
        self.crowd.begin(self._number)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close(self) -> None:
        self.transport.close()
        # What was written may not have been read yet; the kernel would keep it for as long as the user likes.
        self._start_stalled_timer()
