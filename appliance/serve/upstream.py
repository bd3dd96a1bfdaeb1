"""The gateway's side of an engine's socket.

Owns the connection to one engine. It must never follow a redirect, use a proxy or pass on a header of the user: the
engine gets a JSON body and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

CONNECT_S, WRITE_S = 5.0, 30.0
READ_S = 600.0
"""How long an engine may be silent: a long prompt on a slow processor is read before the first token comes."""


class Upstream:
    """One engine.

    Args:
        socket: the path where it listens.
    """

    def __init__(self, socket: str) -> None:
        self._client = httpx.AsyncClient(
            # A new connection for each question: one that was kept could belong to an engine that has ended since.
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_keepalive_connections=0)),
            base_url="http://engine",
            timeout=httpx.Timeout(connect=CONNECT_S, read=READ_S, write=WRITE_S, pool=None),
            trust_env=False,
            follow_redirects=False,
        )

    @asynccontextmanager
    async def ask(self, path: str, body: bytes) -> AsyncIterator[httpx.Response]:
        """Send a request and give its reply, whose body is still to be read.

        Leaving the block closes the connection where the reply is not complete: the engine then stops working on it.

        Raises:
            httpx.TransportError: the engine is not there, or falls silent.
        """
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("POST", path, content=body, headers=headers) as response:
            yield response

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
