"""A request's way to an engine and its answer's way back.

Owns waiting, passing on, and stopping. Rules:
- a user who leaves stops the work: while waiting in the queue, while the engine computes, in the middle of a stream;
- an answer of one piece is passed on as it comes; nothing of its stream is held back or changed;
- every answer names what made it: in headers, and in a field `appliance` where it is one JSON value
  (docs/architecture.md, Serving);
- a stream in whose middle an engine, the gateway or the key ends gets an error as its end. It never looks complete;
- a request is counted once, when it has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.events import Value
from appliance.serve.callers.accounting import answered, key_end_event
from appliance.serve.callers.caller import Caller, key_ended
from appliance.serve.gateway.backend import Backend
from appliance.serve.listening.leaving import USER_LEFT, wait_until_left
from appliance.serve.listening.replies import engine_lost, engine_silent, refusal_response, switching, too_busy
from appliance.serve.observation.metrics import Metrics
from appliance.serve.requests.json_text import to_json, with_fields
from appliance.serve.requests.refusal import Refusal
from appliance.serve.sharing.queue import QueueFullError
from appliance.serve.sharing.residence import Stay
from appliance.serve.sharing.share import MAX_WEIGHT, Share, Turn
from appliance.serve.sharing.watchdog import SilentError, SilentWork
from appliance.serve.upstream.answer import Answer, parse_answer, read_whole
from appliance.serve.upstream.connection import LostError, Reply
from appliance.serve.upstream.forced_call import make_call
from appliance.serve.upstream.gathered import AS_STREAM, read_gathered
from appliance.serve.upstream.pieces import StreamJoiner, as_chunks, join_answers
from appliance.serve.upstream.ranking import rank_answers
from appliance.serve.upstream.token_usage import StreamMeter, TokenUsage, read_usage

if TYPE_CHECKING:
    from appliance.serve.dialects.answer_form import AnswerForm, StreamWriter
    from appliance.serve.requests.work import Work

_STREAM = "text/event-stream"
_JSON = "application/json"
_BYTES_PER_TOKEN = 4
"""About so many bytes of a prompt make a token."""


class Relay(Response):
    """A response that sends the request to the engine when it is sent itself.

    Args:
        backend: the model that it is for.
        work: what passed the checks.
        form: in which the answer is written.
        caller: who sent it.
        metrics: where the request is counted.
        stay: the hold on the loaded model; it ends with the work.
    """

    def __init__(
        self, backend: Backend, work: Work, form: AnswerForm, caller: Caller, metrics: Metrics, stay: Stay
    ) -> None:
        super().__init__()
        self._stay = stay
        self._backend, self._work, self._caller, self._metrics = backend, work, caller, metrics
        self._form = form
        self._share = _share_of(caller)
        self._made_by = backend.made_by()
        self._began = time.monotonic()
        self._is_started = self._is_stream = self._is_complete = False
        self._tokens, self._code = (0, 0), ""
        # What it counts as, unless it gets to an end of its own.
        self._outcome = USER_LEFT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the user leaves first."""
        work = asyncio.create_task(self._answer(scope, receive, send))
        work.add_done_callback(lambda _: self._stay.end())
        left = asyncio.create_task(wait_until_left(receive))
        cut = asyncio.create_task(self._backend.ending.cut.wait())
        with self._caller.follow() as key_end:
            ended = asyncio.create_task(key_end.wait())
            await self._wait((work, left, cut, ended), scope, receive, send)
        if not work.cancelled():
            work.result()

    async def _wait(self, tasks: tuple[asyncio.Task[Any], ...], scope: Scope, receive: Receive, send: Send) -> None:
        work, left, _, ended = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not left.done():
                if ended.done():
                    self._caller.books.report(key_end_event(self._caller))
                await self._cut(work, left, key_ended() if ended.done() else switching(), scope, receive, send)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait({work})
            has_failed = not work.cancelled() and work.exception() is not None
            outcome = 500 if has_failed else self._outcome
            self._metrics.count_request(self._backend.name, self._form.route, outcome)
            self._report(outcome)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._work
        try:
            if work.is_stream and work.forced is None:
                self._outcome = await self._pass_streams(send)
            elif len(work.bodies) == 1 and work.forced is None and work.ranking is None:
                self._outcome = await self._send_answer(await self._ask(0), send)
            else:
                self._outcome = await self._join_answers(send)
        except QueueFullError as full:
            await self._refuse(too_busy(full.retry_after_s, is_own=full.is_own), scope, receive, send)
        except SilentError:
            await self._refuse(engine_silent(self._backend.name), scope, receive, send)
        except LostError:
            await self._refuse(engine_lost(self._backend.name), scope, receive, send)
        except Refusal as refused:
            await self._refuse(refused, scope, receive, send)

    async def _cut(
        self,
        work: asyncio.Task[None],
        left: asyncio.Task[None],
        why: Refusal,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """End an answer that is not complete when the gateway or the key ends."""
        if self._is_complete or (self._is_started and not self._is_stream):
            # All of it is here, and is being written: an error in it would make it neither an answer nor an error.
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            return
        work.cancel()
        await asyncio.wait({work})
        if not self._is_complete:
            await self._refuse(why, scope, receive, send)

    @asynccontextmanager
    async def _piece(
        self, at: int, more: Mapping[str, Any] = MappingProxyType({})
    ) -> AsyncIterator[tuple[Reply, Turn]]:
        """Let the engine do one piece of work; the queue refuses none but the first."""
        self._caller.check_quota()
        work, backend = self._work, self._backend
        body = work.bodies[at]
        prompt = body if work.has_slot_fields else None
        async with backend.queue.slot(self._share, work.cost(at), prompt, is_first=at == 0) as turn:
            self._check_quota_again(turn)
            if work.has_slot_fields:
                body = with_fields(body, {**turn.fields(), **more})
            kind = SilentWork(work.path, work.size_class(at))
            with backend.watchdog.watch(kind) as watcher:
                async with backend.upstream.request(work.path, body, watcher) as reply:
                    yield reply, turn

    def _check_quota_again(self, turn: Turn) -> None:
        """While a piece waited, others of the same key may have used its tokens of the day."""
        try:
            self._caller.check_quota()
        except Refusal:
            turn.spend(0)
            raise

    async def _ask(self, at: int) -> Answer:
        """Let the engine do one piece of work, and read its whole answer."""
        is_gathered = self._work.has_slot_fields and not self._work.has_logprobs
        async with self._piece(at, AS_STREAM if is_gathered else {}) as (reply, turn):
            meter = StreamMeter()
            try:
                answer = await (read_gathered(reply, meter.feed) if is_gathered else read_whole(reply))
            except BaseException:
                # A user who leaves, or a key that ends: the engine has worked for it.
                self._charge(meter.usage(), at)
                raise
            turn.is_read = answer.status == 200
            usage = read_usage(parse_answer(answer))
            if usage is not None:
                self._spend(turn, usage)
                self._charge(usage, at)
            return answer

    def _spend(self, turn: Turn, usage: TokenUsage) -> None:
        turn.spend(usage.worked)
        self._backend.hold_tokens(turn.slot, usage.prompt + usage.completion)

    async def _send_answer(self, answer: Answer, send: Send) -> int:
        value = parse_answer(answer)
        if value is None:
            body = answer.body
        else:
            usage = read_usage(value)
            if usage is not None:
                self._metrics.count_tokens(self._backend.name, usage)
            form = self._form
            written = form.whole(value) if answer.status < 400 else form.engine_error(value, answer.status)
            body = to_json({**written, "appliance": self._made_by})
        await self._start(answer.status, answer.media_type, send, len(body))
        self._is_complete = True
        await send({"type": "http.response.body", "body": body})
        return answer.status

    async def _join_answers(self, send: Send) -> int:
        work = self._work
        answers = await self._ask_all()
        values = [parse_answer(answer) or {} for answer in answers]
        refused = next((answer for answer in answers if answer.status >= 400), None)
        if refused is not None:
            return await self._send_answer(refused, send)
        if work.ranking is not None:
            return await self._send_answer(Answer(200, _JSON, to_json(rank_answers(values, work.ranking))), send)
        joined = join_answers(values, work.answers) if len(values) > 1 else values[0]
        if work.forced is not None:
            joined = make_call(joined, work.forced)
        if not work.is_stream:
            return await self._send_answer(Answer(200, _JSON, to_json(joined)), send)
        await self._start(200, _STREAM, send)
        usage = read_usage(joined)
        if usage is not None:
            self._metrics.count_tokens(self._backend.name, usage)
        writer = self._form.writer()
        for chunk in as_chunks(joined, has_usage=work.has_usage):
            event = b"data: " + to_json(chunk) + b"\n\n"
            await self._send_block(event if writer is None else writer.feed(event, 0), send)
        await self._send_block(b"data: [DONE]\n\n" if writer is None else writer.end(), send)
        await self._end_stream(send)
        return 200

    async def _ask_all(self) -> list[Answer]:
        """Do every piece, as many at once as the engine has slots, and stop at the first that is refused.

        Each piece waits in the queue like a request: others come in between.
        """
        bodies = self._work.bodies
        answers = {0: await self._ask(0)}
        rest = iter(range(1, len(bodies)))

        async def do_pieces() -> None:
            for at in rest:
                if all(answer.status < 400 for answer in answers.values()):
                    answers[at] = await self._ask(at)

        tasks = [asyncio.create_task(do_pieces()) for _ in range(min(self._backend.queue.slots, len(bodies) - 1))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [answers[at] for at in sorted(answers)]

    async def _pass_streams(self, send: Send) -> int:
        work = self._work
        joiner = self._form.writer()
        if joiner is None and len(work.bodies) > 1:
            joiner = StreamJoiner(work.answers, has_usage=work.has_usage)
        for at in range(len(work.bodies)):
            async with self._piece(at) as (reply, turn):
                if not reply.media_type.startswith(_STREAM):
                    if at:
                        raise LostError("no stream")
                    return await self._send_answer(await read_whole(reply), send)
                if at == 0:
                    await self._start(reply.status, _STREAM, send)
                has_failed = await self._pass_stream(reply, turn, send, at, joiner)
            if has_failed:
                # The engine ends such a stream without its mark, and so does this one.
                await self._end_stream(send)
                return 500
        if joiner is not None:
            await self._send_block(joiner.end(), send)
        await self._end_stream(send)
        return 200

    async def _pass_stream(self, reply: Reply, turn: Turn, send: Send, at: int, joiner: StreamWriter | None) -> bool:
        """Pass the stream of one piece on.

        Returns:
            Whether its last event is an error.

        Raises:
            LostError: it ends, and has not said that it is complete.
        """
        meter = StreamMeter()
        try:
            async for block in reply.blocks:
                turn.is_read = True  # the engine begins a stream with its first token
                is_first = at == 0 and meter.events == 0
                meter.feed(block)
                if is_first and meter.events:
                    self._metrics.observe_first_token(self._backend.name, time.monotonic() - self._began)
                await self._send_block(block if joiner is None else joiner.feed(block, at), send)
                if joiner is not None and joiner.has_failed:
                    return True
            if not meter.has_ended and not meter.has_failed:
                raise LostError("a stream without its end")
            return meter.has_failed
        finally:
            usage = meter.usage()
            if usage.prompt:  # the engine has stated it at the end; what breaks off counts as estimated
                self._spend(turn, usage)
            self._metrics.count_tokens(self._backend.name, usage)
            self._charge(usage, at)

    def _charge(self, usage: TokenUsage, at: int) -> None:
        """Count a piece for its caller; a stream that broke off has not stated the tokens of its prompt."""
        tokens_in = usage.prompt or len(self._work.bodies[at]) // _BYTES_PER_TOKEN
        tokens_in = 0 if at % self._work.answers else tokens_in  # several answers have one prompt
        self._tokens = (self._tokens[0] + tokens_in, self._tokens[1] + usage.completion)
        self._caller.count(tokens_in, usage.completion)

    def _report(self, outcome: int) -> None:
        if self._is_started:
            self._caller.count_request()
        tokens_in, tokens_out = self._tokens
        more: dict[str, Value] = {"code": self._code} if self._code else {}
        more |= {"tokens_in": tokens_in, "tokens_out": tokens_out, "is_stream": self._work.is_stream}
        more["took_s"] = round(time.monotonic() - self._began, 3)
        self._caller.books.report(answered(self._caller, self._form.route, self._backend.name, outcome, **more))

    async def _send_block(self, block: bytes, send: Send) -> None:
        if block:
            await send({"type": "http.response.body", "body": block, "more_body": True})

    async def _end_stream(self, send: Send) -> None:
        self._is_complete = True
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, media_type: str, send: Send, length: int | None = None) -> None:
        self._is_started, self._is_stream = True, media_type == _STREAM
        headers = {"content-type": media_type, **{f"appliance-{name}": text for name, text in self._made_by.items()}}
        if length is not None:
            headers["content-length"] = str(length)
        encoded = [(name.encode(), text.encode("latin-1", "replace")) for name, text in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self._outcome, self._is_complete, self._code = refusal.status, True, refusal.code
        self._metrics.count_refusal(refusal.code)
        if self._is_started:
            await send({"type": "http.response.body", "body": self._form.error_event(refusal)})
        else:
            await refusal_response(refusal, self._form.dialect)(scope, receive, send)


def _share_of(caller: Caller) -> Share:
    rights = caller.key.rights
    weight = max(1, min(MAX_WEIGHT, 1 + rights.priority))
    return Share(caller.account, weight, rights.quotas.get("concurrency", 0))
