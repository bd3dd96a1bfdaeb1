"""A request's way to an engine and its answer's way back.

Owns waiting, passing on, and stopping. Rules:
- a user who leaves stops the work: while waiting in the queue, while the engine computes, in the middle of a stream;
- an answer is passed on as it comes; nothing of a stream is held back or changed;
- every answer names what made it: in headers, and in a field `appliance` where it is one JSON value
  (docs/architecture.md, Serving);
- an engine that ends in the middle of a stream ends it with an error in the stream, never as if it were complete;
- a request is counted once, when it has ended.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.serve.gateway.backend import Backend
from appliance.serve.gateway.metrics import USER_LEFT, Metrics
from appliance.serve.gateway.queue import QueueFullError
from appliance.serve.gateway.replies import Refusal, to_json, too_busy
from appliance.serve.gateway.request_limits import CheckedRequest
from appliance.serve.gateway.token_usage import StreamMeter, read_usage
from appliance.serve.gateway.upstream import LostError, Reply

MAX_ANSWER_BYTES = 64 << 20
_STREAM = "text/event-stream"


class Relay(Response):
    """A response that sends the request to the engine when it is sent itself.

    Args:
        backend: the model that it is for.
        path: of the engine's route.
        request: what passed the checks.
        metrics: where the request is counted.
    """

    def __init__(self, backend: Backend, path: str, request: CheckedRequest, metrics: Metrics) -> None:
        super().__init__()
        self._backend, self._path, self._request, self._metrics = backend, path, request, metrics
        self._made_by = backend.made_by()
        self._began = time.monotonic()
        self._is_started = False
        # What it counts as, unless it gets to an end of its own.
        self._outcome = USER_LEFT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the user leaves first."""
        work = asyncio.create_task(self._answer(scope, receive, send))
        left = asyncio.create_task(_wait_until_left(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            work.cancel()
            await asyncio.wait({work})
            has_failed = not work.cancelled() and work.exception() is not None
            self._metrics.count_request(self._backend.name, self._path, 500 if has_failed else self._outcome)
        if not work.cancelled():
            work.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._backend.queue.slot(), self._post() as reply:
                if reply.media_type.startswith(_STREAM):
                    await self._pass_stream(reply, send)
                else:
                    await self._pass_whole(reply, send)
                self._outcome = reply.status
        except QueueFullError as full:
            await self._refuse(too_busy(full.retry_after_s), scope, receive, send)
        except LostError:
            await self._refuse(_lost(self._backend.name), scope, receive, send)

    def _post(self) -> AbstractAsyncContextManager[Reply]:
        return self._backend.upstream.post(self._path, self._request.body)

    async def _pass_stream(self, reply: Reply, send: Send) -> None:
        await self._start(reply.status, _STREAM, send)
        meter = StreamMeter()
        try:
            async for block in reply.blocks:
                is_first = meter.events == 0
                meter.feed(block)
                if is_first and meter.events:
                    self._metrics.observe_first_token(self._backend.name, time.monotonic() - self._began)
                await send({"type": "http.response.body", "body": block, "more_body": True})
        finally:
            self._metrics.count_tokens(self._backend.name, meter.usage())
        await send({"type": "http.response.body", "body": b""})

    async def _pass_whole(self, reply: Reply, send: Send) -> None:
        data = bytearray()
        async for block in reply.blocks:
            data += block
            if len(data) > MAX_ANSWER_BYTES:
                raise LostError("an answer without end")
        is_value = reply.media_type.startswith("application/json")
        body = self._add_field(bytes(data)) if is_value else bytes(data)
        await self._start(reply.status, reply.media_type, send, len(body))
        await send({"type": "http.response.body", "body": body})

    def _add_field(self, data: bytes) -> bytes:
        try:
            value: Any = json.loads(data)
        except (ValueError, RecursionError):
            return data
        if not isinstance(value, dict):
            return data
        usage = read_usage(value)
        if usage is not None:
            self._metrics.count_tokens(self._backend.name, usage)
        return to_json({**value, "appliance": self._made_by})

    async def _start(self, status: int, media_type: str, send: Send, length: int | None = None) -> None:
        self._is_started = True
        headers = {"content-type": media_type, **{f"appliance-{name}": text for name, text in self._made_by.items()}}
        if length is not None:
            headers["content-length"] = str(length)
        encoded = [(name.encode(), text.encode("latin-1", "replace")) for name, text in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self._outcome = refusal.status
        if self._is_started:
            event = b"data: " + to_json(refusal.body()) + b"\n\n"
            await send({"type": "http.response.body", "body": event})
        else:
            await refusal.response()(scope, receive, send)


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _lost(model: str) -> Refusal:
    return Refusal(503, "engine_lost", f"The engine of {model!r} ended or fell silent.", headers={"retry-after": "5"})
