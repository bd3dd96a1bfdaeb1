"""One question's way to an engine and its answer's way back.

Owns waiting, passing on, and stopping. Rules:
- a user who leaves stops the work: while waiting in line, while the engine thinks, in the middle of a stream;
- an answer is passed on as it comes; nothing of a stream is held back;
- every answer names what made it: in headers, and in a field `appliance` where it is one JSON value (DESIGN 10);
- an engine that ends in the middle of a stream ends it with an error in the stream, never as if it were complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.serve.gateway.metrics import Metrics
from appliance.serve.gateway.queue import Full, Lane
from appliance.serve.gateway.replies import Refusal, spell, too_busy
from appliance.serve.gateway.request_limits import Question
from appliance.serve.gateway.upstream import LostError, Reply, Upstream

MAX_ANSWER_BYTES = 64 << 20
_STREAM = "text/event-stream"


class Relay(Response):
    """A response that asks the engine when it is sent.

    Args:
        upstream: the engine.
        lane: the line in front of it.
        path: of the engine's route.
        question: what passed the checks.
        made_by: the digests that the answer names.
        metrics: where the answer is counted.
    """

    def __init__(
        self,
        upstream: Upstream,
        lane: Lane,
        path: str,
        question: Question,
        made_by: dict[str, str],
        metrics: Metrics,
    ) -> None:
        super().__init__()
        self._upstream, self._lane = upstream, lane
        self._path, self._question = path, question
        self._made_by, self._metrics = made_by, metrics
        self._began = time.monotonic()
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the user leaves first."""
        work = asyncio.create_task(self._answer(scope, receive, send))
        left = asyncio.create_task(_wait_until_left(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._count(499)
        finally:
            left.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._lane.turn(), self._upstream.post(self._path, self._question.body) as reply:
                if reply.media_type.startswith(_STREAM):
                    await self._pass_stream(reply, send)
                else:
                    await self._pass_whole(reply, send)
        except Full as full:
            await self._refuse(too_busy(full.retry_after_s), scope, receive, send)
        except LostError:
            await self._refuse(_lost(self._question.model), scope, receive, send)

    async def _pass_stream(self, reply: Reply, send: Send) -> None:
        await self._start(reply.status, _STREAM, send)
        async for block in reply.blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
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
        usage = value.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(tokens, int):
            self._metrics.add("completion_tokens_total", tokens, model=self._question.model)
        return spell({**value, "appliance": self._made_by})

    async def _start(self, status: int, kind: str, send: Send, length: int | None = None) -> None:
        self._is_started = True
        self._count(status)
        headers = {"content-type": kind, **{f"appliance-{name}": text for name, text in self._made_by.items()}}
        if length is not None:
            headers["content-length"] = str(length)
        spelled = [(name.encode(), text.encode("latin-1", "replace")) for name, text in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": spelled})

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_started:
            event = b"data: " + spell(refusal.body()) + b"\n\n"
            await send({"type": "http.response.body", "body": event})
            return
        self._count(refusal.status)
        await refusal.response()(scope, receive, send)

    def _count(self, status: int) -> None:
        model = self._question.model
        self._metrics.add("requests_total", model=model, route=self._path, status=str(status))
        self._metrics.add("first_byte_seconds_sum", time.monotonic() - self._began, model=model)
        self._metrics.add("first_byte_seconds_count", model=model)


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _lost(model: str) -> Refusal:
    return Refusal(503, "engine_lost", f"The engine of {model!r} ended or fell silent.", headers={"retry-after": "5"})
