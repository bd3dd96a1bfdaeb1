"""The gateway's connections to an engine: HTTP/1.1 by h11, over a stream of asyncio on the engine's UNIX socket.

Owns each request to an engine and the bytes of its reply. The engine is verified, but what it answers is not trusted.

Rules:
- the engine gets a JSON body and nothing else: no header of the user, no redirect, no proxy;
- each request has a connection of its own: a cached one could belong to an engine that has ended since;
- leaving a request closes its connection, and the engine stops working on it;
- the heads of replies and of chunks are bounded, and each wait has a timeout;
- a reply states its length or comes in chunks: otherwise nobody could see that it broke off;
- its status and media type are of those that an engine has. Users get no page, no redirect and no demand for a key that
  an engine has made up (threat T154).
"""

from __future__ import annotations

import asyncio
import re
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import h11

CONNECT_S, WRITE_S = 5.0, 30.0
READ_S = 600.0
"""How long an engine may be silent where nobody watches it."""
READ_BYTES = 64 << 10
MAX_HEAD_BYTES = 64 << 10
"""Of a reply's status line and headers, of the head of one chunk, and of trailers."""
_MEDIA_TYPES = re.compile(r"(?:application/json|text/event-stream)(?:; ?charset=utf-8)?|text/plain(?:;.*)?", re.DOTALL)
_NOT_ITS_OWN = frozenset({401, 402, 403, 407, 429})
"""Statuses about keys and quotas, of which an engine knows nothing."""
_RETRY_S = 0.01


class LostError(Exception):
    """The engine is not there, fell silent, broke the rules of HTTP, or ended in the middle of a reply."""


@dataclass(frozen=True)
class Reply:
    """What an engine answers.

    Args:
        status: of HTTP.
        media_type: from its header `content-type`.
        blocks: the body as it comes; raises `LostError` where it breaks off.
    """

    status: int
    media_type: str
    blocks: AsyncIterator[bytes]


class Watcher(Protocol):
    """Watches one request: it decides how long the engine may be silent."""

    def opened(self, abort: Callable[[], None]) -> None:
        """The connection is there; `abort` closes it."""

    def receives(self, block: bytes) -> None:
        """The engine has sent a part of its reply's body, which the user gets first."""

    def waits(self) -> None:
        """The user has got it; from now on, this waits for the engine."""


class Upstream:
    """One engine.

    Args:
        socket: the path where it listens.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket

    @asynccontextmanager
    async def request(
        self, path: str, body: bytes | None = None, watcher: Watcher | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request and give its reply, whose body is still to be read.

        Leaving the block closes the connection. Where the reply is not complete, the engine then stops working on it.

        Args:
            path: of the engine's route.
            body: JSON to post; None gets what the route shows.
            watcher: decides how long the engine may be silent; without one that is `READ_S`.

        Raises:
            LostError: the engine is not there, is silent for too long, or sends no valid reply.
        """
        connection = await _connect(self._socket, watcher)
        try:
            await connection.send(path, body)
            yield await connection.receive()
        finally:
            connection.close()


class EngineConnection:
    """One request to an engine, and its reply.

    Args:
        reader: of the connection.
        writer: of the connection.
        watcher: decides how long the engine may be silent.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watcher: Watcher | None = None
    ) -> None:
        self._reader, self._writer, self._watcher = reader, writer, watcher
        if watcher is not None:
            watcher.opened(writer.transport.abort)
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._is_late = False
        # One timer for the whole connection: a timeout for each read would cost more than the read.
        self._timer = self._loop.call_later(WRITE_S, self._on_timer)

    async def send(self, path: str, body: bytes | None) -> None:
        """Send a request, which is a POST where it has a body.

        Raises:
            LostError: the engine does not take it within `WRITE_S`.
        """
        headers = {"host": "engine"}
        if body is not None:
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
        headers |= {"accept-encoding": "identity", "connection": "close"}
        method = "GET" if body is None else "POST"
        request = h11.Request(method=method, target=path, headers=list(headers.items()))
        with self._within(WRITE_S):
            for event in (request, h11.Data(data=body or b""), h11.EndOfMessage()):
                self._writer.write(self._protocol.send(event) or b"")
            await self._writer.drain()

    async def receive(self) -> Reply:
        """Wait for the head of the reply.

        Raises:
            LostError: it does not come, is longer than `MAX_HEAD_BYTES`, or is none that an engine may give.
        """
        while (event := self._next_event()) is h11.NEED_DATA:
            await self._read()
        if not isinstance(event, h11.Response):
            raise LostError("an informational reply, which nothing asked for")
        headers = dict(event.headers)
        if not {b"content-length", b"transfer-encoding"} & headers.keys():
            raise LostError("a reply that states neither its length nor chunks")
        media_type = headers.get(b"content-type", b"application/json").decode("latin-1")
        if not may_reply(event.status_code, media_type):
            raise LostError("a status or a media type that no engine has")
        return Reply(event.status_code, media_type, self._receive_blocks())

    def close(self) -> None:
        """Close the connection at once, whatever is still to be written."""
        self._timer.cancel()
        self._writer.transport.abort()

    async def _receive_blocks(self) -> AsyncIterator[bytes]:
        parts: list[bytes] = []
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                continue
            # What one read brought is passed on as one block, however many chunks it holds.
            if parts:
                block = b"".join(parts)
                if self._watcher is not None:
                    self._watcher.receives(block)
                yield block
                if self._watcher is not None:
                    self._watcher.waits()
                parts.clear()
            if event is not h11.NEED_DATA:
                return
            await self._read()

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError as error:
            raise LostError(str(error)) from error

    async def _read(self) -> None:
        # A watcher has a clock of its own, and each token of each stream comes by here.
        with self._within(READ_S if self._watcher is None else None):
            data = await self._reader.read(READ_BYTES)
        self._protocol.receive_data(data)

    @contextmanager
    def _within(self, timeout_s: float | None) -> Iterator[None]:
        """Close the connection where the block waits for longer, and raise `LostError` where it fails."""
        self._deadline = None if timeout_s is None else self._loop.time() + timeout_s
        try:
            yield
        except OSError as error:
            raise LostError(str(error)) from error
        finally:
            self._deadline = None
        if self._is_late:
            raise LostError(f"nothing for {timeout_s:.0f} s")

    def _on_timer(self) -> None:
        wait_s = WRITE_S if self._deadline is None else self._deadline - self._loop.time()
        if wait_s > 0:
            self._timer = self._loop.call_later(wait_s, self._on_timer)
        else:
            self._is_late = True
            self._writer.transport.abort()


def may_reply(status: int, media_type: str) -> bool:
    """Whether an engine may answer so: with its work or an error, as JSON, as a stream, or as plain text.

    Args:
        status: of HTTP.
        media_type: from the header, untrusted.
    """
    is_known = status == 200 or (400 <= status < 600 and status not in _NOT_ITS_OWN)
    return is_known and _MEDIA_TYPES.fullmatch(media_type) is not None


async def _connect(path: str, watcher: Watcher | None = None) -> EngineConnection:
    socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
    try:
        await _connect_socket(socket, path)
        return EngineConnection(*await asyncio.open_unix_connection(sock=socket, limit=READ_BYTES), watcher)
    except BaseException as error:
        socket.close()
        if isinstance(error, OSError):
            raise LostError(str(error)) from error
        raise


async def _connect_socket(socket: sockets.socket, path: str) -> None:
    now = asyncio.get_running_loop().time
    until = now() + CONNECT_S
    while True:
        try:
            return socket.connect(path)
        except BlockingIOError:
            # The engine's queue of connections is full. The end of that is no event of a UNIX socket.
            if now() > until:
                raise
        await asyncio.sleep(_RETRY_S)
