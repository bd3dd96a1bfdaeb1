"""The gateway's side of an engine's socket.

Owns the connection to one engine. It must never follow a redirect, use a proxy or pass on a header of the user: the
engine gets a JSON body and nothing else. It speaks through httpcore, which does none of these, and which a gateway
loads in a fifth of the time that a whole HTTP client takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpcore

CONNECT_S, WRITE_S = 5.0, 30.0
READ_S = 600.0
"""How long an engine may be silent: a long prompt on a slow processor is read before the first token comes."""
_TIMEOUTS = {"timeout": {"connect": CONNECT_S, "read": READ_S, "write": WRITE_S}}


class LostError(Exception):
    """The engine is not there, fell silent, or ended in the middle of an answer."""


@dataclass(frozen=True)
class Reply:
    """What an engine answers.

    Args:
        status: of HTTP.
        kind: its media type.
        blocks: the body as it comes; where it breaks off, the block of `Upstream.ask` is left with `LostError`.
    """

    status: int
    kind: str
    blocks: AsyncIterator[bytes]


class Upstream:
    """One engine.

    Args:
        socket: the path where it listens.
    """

    def __init__(self, socket: str) -> None:
        # A new connection for each question: one that was kept could belong to an engine that has ended since.
        self._pool = httpcore.AsyncConnectionPool(uds=socket, max_connections=None, max_keepalive_connections=0)

    @asynccontextmanager
    async def ask(self, path: str, body: bytes) -> AsyncIterator[Reply]:
        """Send a request and give its reply, whose body is still to be read.

        Leaving the block closes the connection where the reply is not complete: the engine then stops working on it.

        Raises:
            LostError: the engine is not there, or falls silent.
        """
        headers = {"host": "engine", "content-type": "application/json", "content-length": str(len(body))}
        headers["accept-encoding"] = "identity"
        asked: dict[str, Any] = {"headers": headers, "content": body, "extensions": _TIMEOUTS}
        try:
            async with self._pool.stream("POST", f"http://engine{path}", **asked) as response:
                yield Reply(response.status, _kind(response), response.aiter_stream())
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise LostError(str(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def _kind(response: httpcore.Response) -> str:
    found = {name.lower(): value for name, value in response.headers}
    return found.get(b"content-type", b"application/json").decode("latin-1")
