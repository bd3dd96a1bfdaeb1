"""A whole answer, gathered from the stream by which the engine gives it.

While an engine answers others, it does not notice that the connection of an answer in one part has closed. It goes on
to the end for nobody. So it is asked for a stream, whose next event it then cannot send. This is the stream's other
end, and the answer is the one that the engine gives in one part.

Rule: an answer with logprobs is not asked for so. A stream of llama.cpp leaves out those of tokens that show no text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from appliance.serve.requests.json_text import to_json
from appliance.serve.upstream.answer import MAX_ANSWER_BYTES, Answer, as_mistake, read_whole
from appliance.serve.upstream.connection import LostError, Reply
from appliance.serve.upstream.token_usage import MAX_EVENT_BYTES

AS_STREAM = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
"""The fields by which the engine gives a stream, with an event also while it reads a long prompt."""
_COMMON = ("id", "created", "model", "system_fingerprint")
_LAST = ("usage", "timings")
_OBJECTS = {"chat.completion.chunk": "chat.completion"}


async def read_gathered(reply: Reply, on_block: Callable[[bytes], None]) -> Answer:
    """Read the answer of one piece of work, which is asked for with `AS_STREAM`.

    Args:
        reply: of the engine.
        on_block: gets what comes of the stream, as it comes.

    Raises:
        LostError: it breaks off, is longer than an answer may be, or is no stream of an engine.
    """
    if not reply.media_type.startswith("text/event-stream"):
        return await read_whole(reply)
    gathering, rest, size = Gathering(), b"", 0
    async for block in reply.blocks:
        *lines, rest = (rest + block).split(b"\n")
        size += len(block)
        on_block(block)
        # Of each token, a stream has many times the bytes of its text.
        if size > 16 * MAX_ANSWER_BYTES or len(rest) > MAX_EVENT_BYTES:
            raise LostError("an answer without end")
        for line in lines:
            gathering.add(line)
    return gathering.answer()


class Gathering:
    """The events of one stream, with one choice."""

    def __init__(self) -> None:
        self._value: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None
        self._texts: dict[str, list[str]] = {"text": [], "content": [], "reasoning_content": []}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._is_chat = self._has_ended = False

    def add(self, line: bytes) -> None:
        """Take one line of the stream.

        Raises:
            LostError: it holds no event of an engine.
        """
        if not line.startswith(b"data:") or self._error is not None:
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._has_ended = True
            return
        try:
            event = json.loads(data)
            if "error" in event:
                self._error = dict(event["error"])
                return
            self._value |= {name: event[name] for name in (*_COMMON, *_LAST, "object") if name in event}
            for choice in event.get("choices", ()):
                self._add_choice(choice)
        except (ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
            raise LostError("no event of an engine") from error

    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            LostError: the stream had no end.
        """
        if self._error is not None:
            code = self._error.get("code")
            status = code if type(code) is int and 400 <= code < 600 else 500
            answer = Answer(status, "application/json", to_json({"error": self._error}))
            return as_mistake(answer) if status == 500 else answer
        if not self._has_ended or self._finish is None:
            raise LostError("a stream without its end")
        choice: dict[str, Any] = {"finish_reason": self._finish, "index": 0}
        if self._is_chat:
            choice["message"] = self._message()
        else:
            choice |= {"text": "".join(self._texts["text"]), "logprobs": None}
        kind = str(self._value.get("object", ""))
        value = {**self._value, "object": _OBJECTS.get(kind, kind), "choices": [choice]}
        return Answer(200, "application/json", to_json(value))

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts["content"])}
        if self._texts["reasoning_content"]:
            message["reasoning_content"] = "".join(self._texts["reasoning_content"])
        if self._calls:
            message["tool_calls"] = [self._calls[at] for at in sorted(self._calls)]
        return message

    def _add_choice(self, choice: dict[str, Any]) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        self._is_chat |= delta is not None
        for name, parts in self._texts.items():
            part = choice.get("text") if name == "text" else (delta or {}).get(name)
            if part:
                parts.append(str(part))
        for part in (delta or {}).get("tool_calls") or ():
            empty = {"type": "function", "function": {"name": "", "arguments": ""}, "id": ""}
            call = self._calls.setdefault(int(part["index"]), empty)
            call["id"] = part.get("id") or call["id"]
            function = part.get("function") or {}
            for field in ("name", "arguments"):
                call["function"][field] += function.get(field) or ""
