"""An engine's stream of a chat, event by event, for dialects with events of their own.

Owns the events of OpenAI's chat that an engine sends. What translates them overrides a method for each kind.

Rules:
- each event is translated when it has come; only half a line is kept;
- a stream that does not say how it ended is not complete, and is never shown as if it were.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.serve.dialects.answer_form import engine_refusal
from appliance.serve.dialects.chat_answer import AnsweredCall, TokenCounts, as_list, as_object, as_text, read_counts
from appliance.serve.listening.replies import engine_lost
from appliance.serve.requests.refusal import Refusal
from appliance.serve.upstream.answer import MAX_ANSWER_BYTES
from appliance.serve.upstream.connection import LostError
from appliance.serve.upstream.token_usage import MAX_EVENT_BYTES

_DATA = b"data:"
_DONE = b"data: [DONE]"


class ChatStream:
    """Translates the stream of one answer. `has_failed` after an error in it.

    Args:
        model: its name.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.has_failed = False
        self._rest = b""
        self._size = 0
        self._finish = ""
        self._tokens = TokenCounts()
        self._is_begun = False
        self._call = -1
        """Which call came last; -1 before the first."""
        self._is_call_open = False

    def feed(self, block: bytes, _piece: int) -> bytes:
        """Take what an engine sent, and give what the user gets of it.

        Args:
            block: with any number of lines, which may end or begin in another block.

        Returns:
            The events. Where the block is no stream of a chat, the last of them is the error.
        """
        self._size += len(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        written = []
        try:
            if len(self._rest) > MAX_EVENT_BYTES or self._size > MAX_ANSWER_BYTES:
                raise LostError("an answer without end")
            for line in lines:
                # What is written moves the state on, so it is kept whatever comes after it.
                written.append(self._translate(line) if line.startswith(_DATA) else b"")
        except LostError:
            self.has_failed = True
            written.append(self.begin_once() + self.fail(engine_lost(self.model)))
        return b"".join(written)

    def end(self) -> bytes:
        """The last events.

        Raises:
            LostError: the engine did not say how the answer ended.
        """
        if not self._finish:
            raise LostError("a stream that breaks off")
        return self.begin_once() + self.finish(self._finish, self._tokens)

    def begin_once(self) -> bytes:
        """The first events, unless they were written."""
        if self._is_begun:
            return b""
        self._is_begun = True
        return self.begin()

    def begin(self) -> bytes:
        """The events before all others."""
        raise NotImplementedError

    def add_reasoning(self, text: str) -> bytes:
        """The events for a piece of reasoning."""
        raise NotImplementedError

    def add_text(self, text: str, logprobs: list[Any]) -> bytes:
        """The events for a piece of text, with the probabilities of its tokens."""
        raise NotImplementedError

    def begin_call(self, call_id: str, name: str) -> bytes:
        """The events for the beginning of a call."""
        raise NotImplementedError

    def add_arguments(self, text: str) -> bytes:
        """The events for a piece of the arguments of the call that was begun last."""
        raise NotImplementedError

    def finish(self, reason: str, tokens: TokenCounts) -> bytes:
        """The events after all others."""
        raise NotImplementedError

    def fail(self, refusal: Refusal) -> bytes:
        """The events for an error, after which nothing comes."""
        raise NotImplementedError

    def _translate(self, line: bytes) -> bytes:
        if self.has_failed or line.startswith(_DONE):
            return b""
        try:
            event = json.loads(line[len(_DATA) :])
        except (ValueError, RecursionError):
            raise LostError("an event that is no JSON") from None
        if not isinstance(event, dict):
            raise LostError("an event that is no object")
        if "error" in event:
            self.has_failed = True
            return self.begin_once() + self.fail(engine_refusal(event, 500))
        if isinstance(event.get("usage"), dict):
            self._tokens = read_counts(event["usage"])
        choices = as_list(event.get("choices"))
        if choices:
            return self._translate_choice(as_object(choices[0]))
        return self.begin_once()

    def _translate_choice(self, choice: dict[str, Any]) -> bytes:
        delta = as_object(choice.get("delta"))
        reasoning, text = as_text(delta.get("reasoning_content")), as_text(delta.get("content"))
        logprobs = as_list(as_object(choice.get("logprobs")).get("content"))
        if reasoning or text or logprobs:
            self._is_call_open = False
        calls = [self._read_call(as_object(call)) for call in as_list(delta.get("tool_calls"))]
        finish = as_text(choice.get("finish_reason"))
        parts = [self.begin_once()]
        if reasoning:
            parts.append(self.add_reasoning(reasoning))
        if text or logprobs:
            parts.append(self.add_text(text, logprobs))
        parts += [self._translate_call(*call) for call in calls]
        self._finish = finish or self._finish
        return b"".join(parts)

    def _read_call(self, call: dict[str, Any]) -> tuple[AnsweredCall, bool]:
        """A piece of a call, and whether it is the first of it."""
        at, function = call.get("index", 0), as_object(call.get("function"))
        is_new = at == self._call + 1
        if is_new:
            self._call = at
        elif at != self._call or not self._is_call_open:
            raise LostError("calls out of their order")
        self._is_call_open = True
        texts = (as_text(call.get("id")), as_text(function.get("name")), as_text(function.get("arguments")))
        return AnsweredCall(*texts), is_new

    def _translate_call(self, call: AnsweredCall, is_new: bool) -> bytes:
        begun = self.begin_call(call.id, call.name) if is_new else b""
        return begun + self.add_arguments(call.arguments) if call.arguments else begun
