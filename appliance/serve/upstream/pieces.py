"""Answers of several pieces of work, put together as the one answer that the user asked for.

Rules:
- choices and embeddings keep the order of the request, whatever was ready first;
- tokens are those of all pieces; a prompt with several answers is counted once, as OpenAI does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from appliance.serve.requests.json_text import to_json
from appliance.serve.upstream.connection import LostError
from appliance.serve.upstream.token_usage import MAX_EVENT_BYTES

_COMMON = ("id", "object", "created", "model")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def join_answers(answers: Sequence[dict[str, Any]], answers_each: int = 1) -> dict[str, Any]:
    """Join whole answers.

    Args:
        answers: at least one, of one route, in the order of the request.
        answers_each: how many answers one prompt has.
    """
    joined = dict(answers[0])
    for name in ("choices", "data"):
        if name in joined:
            parts = [part for answer in answers for part in answer.get(name, ())]
            joined[name] = [{**part, "index": at} for at, part in enumerate(parts)]
    joined["usage"] = join_usage([answer.get("usage") or {} for answer in answers], answers_each)
    return joined


def join_usage(usages: Sequence[dict[str, Any]], answers_each: int = 1) -> dict[str, int]:
    """Add up the tokens of several answers."""
    prompts = sum(usage.get("prompt_tokens", 0) for usage in usages[::answers_each])
    written = sum(usage.get("completion_tokens", 0) for usage in usages)
    joined = {"prompt_tokens": prompts, "completion_tokens": written, "total_tokens": prompts + written}
    return {name: joined[name] for name in _COUNTS if any(name in usage for usage in usages)}


def as_chunks(answer: dict[str, Any], *, has_usage: bool) -> list[dict[str, Any]]:
    """Write a whole answer of a chat as the chunks of a stream: one for each choice, then how it ended."""
    common: dict[str, Any] = {
        name: answer[name] for name in ("id", "created", "model", "system_fingerprint") if name in answer
    }
    common["object"] = "chat.completion.chunk"
    chunks = []
    for choice in answer.get("choices", ()):
        delta = dict(choice.get("message") or {})
        delta["tool_calls"] = [{**call, "index": at} for at, call in enumerate(delta.get("tool_calls") or ())]
        at = choice.get("index", 0)
        chunks.append({**common, "choices": [{"index": at, "delta": delta, "finish_reason": None}]})
        chunks.append({**common, "choices": [{"index": at, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if has_usage:
        chunks.append({**common, "choices": [], "usage": answer.get("usage")})
    return chunks


class StreamJoiner:
    """Joins the streams of several pieces, one after the other, into one. `has_failed` after an error in one of them.

    Args:
        answers_each: how many answers one prompt has.
        has_usage: whether the user asked for the count of tokens at the end.
    """

    def __init__(self, answers_each: int, *, has_usage: bool) -> None:
        self.has_failed = False
        self._answers_each, self._has_usage = answers_each, has_usage
        self._rest = b""
        self._usages: dict[int, dict[str, Any]] = {}
        self._common: dict[str, Any] = {}

    def feed(self, block: bytes, piece: int) -> bytes:
        """Take what an engine sent, and give what the user gets of it.

        Args:
            block: with any number of lines, which may end or begin in another block.
            piece: which one, from 0.

        Raises:
            LostError: a line without end.
        """
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise LostError("an event without end")
        return b"".join(filter(None, (self._pass(line, piece) for line in lines)))

    def end(self) -> bytes:
        """The end of the joined stream."""
        usages = [self._usages.get(at, {}) for at in sorted(self._usages)]
        event = {**self._common, "choices": [], "usage": join_usage(usages, self._answers_each)}
        usage = b"data: " + to_json(event) + b"\n\n" if self._has_usage else b""
        return usage + b"data: [DONE]\n\n"

    def _pass(self, line: bytes, piece: int) -> bytes:
        if not line.startswith(b"data:") or line.startswith(b"data: [DONE]"):
            return b""
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError):
            raise LostError("an event that is no JSON") from None
        if not isinstance(event, dict):
            raise LostError("an event that is no object")
        if isinstance(event.get("usage"), dict):
            self._usages[piece] = event.pop("usage")
        choices = event.get("choices")
        if "error" in event:
            self.has_failed = True
        elif not choices:
            return b""
        if isinstance(choices, list):
            event["choices"] = [{**choice, "index": piece} for choice in choices if isinstance(choice, dict)]
        # One answer has one id, whatever the pieces are called.
        self._common = self._common or {name: event[name] for name in _COMMON if name in event}
        return b"data: " + to_json({**event, **self._common}) + b"\n\n"
