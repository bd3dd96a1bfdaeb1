"""An answer as `POST /v1/messages` writes it: the message itself, its blocks, and its events."""

from __future__ import annotations

import json
import secrets
from typing import Any

from appliance.serve.dialects.answer_form import as_event
from appliance.serve.dialects.chat_answer import AnsweredCall, ModelAnswer, TokenCounts
from appliance.serve.dialects.chat_stream import ChatStream
from appliance.serve.requests.paths import ANTHROPIC
from appliance.serve.requests.refusal import Refusal

Block = dict[str, Any]
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
"""Of OpenAI, as Anthropic calls them. An engine does not say whether a stop sequence ended a text."""


def write_message(answer: ModelAnswer, model: str) -> dict[str, Any]:
    """A whole answer.

    Args:
        answer: of the engine.
        model: its name.
    """
    content: list[Block] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [_call_block(call) for call in answer.calls]
    stop = {"stop_reason": _reason(answer.finish), "stop_sequence": None}
    return {**_new_message(model), "content": content, **stop, "usage": _write_usage(answer.tokens)}


class MessageStream(ChatStream):
    """Translates a stream into the events of Messages.

    Args:
        model: its name.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._blocks = 0
        self._open = ""
        """The kind of the block that is being written; empty between two."""

    def begin(self) -> bytes:
        """See `ChatStream`. An engine counts the tokens when it has ended: the last events have them."""
        empty: dict[str, Any] = {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _write_usage(TokenCounts()),
        }
        return as_event({"type": "message_start", "message": {**_new_message(self.model), **empty}})

    def add_reasoning(self, text: str) -> bytes:
        """See `ChatStream`."""
        written = self._open_once("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        return written + self._delta({"type": "thinking_delta", "thinking": text})

    def add_text(self, text: str, logprobs: list[Any]) -> bytes:
        """See `ChatStream`."""
        if not text:
            return b""
        return self._open_once("text", {"type": "text", "text": ""}) + self._delta({"type": "text_delta", "text": text})

    def begin_call(self, call_id: str, name: str) -> bytes:
        """See `ChatStream`."""
        block = {"type": "tool_use", "id": call_id or _make_id("toolu"), "name": name, "input": {}}
        return self._close() + self._open_once("tool_use", block)

    def add_arguments(self, text: str) -> bytes:
        """See `ChatStream`."""
        return self._delta({"type": "input_json_delta", "partial_json": text})

    def finish(self, reason: str, tokens: TokenCounts) -> bytes:
        """See `ChatStream`."""
        delta = {"stop_reason": _reason(reason), "stop_sequence": None}
        last = as_event({"type": "message_delta", "delta": delta, "usage": _write_usage(tokens)})
        return self._close() + last + as_event({"type": "message_stop"})

    def fail(self, refusal: Refusal) -> bytes:
        """See `ChatStream`."""
        return as_event(refusal.body(ANTHROPIC))

    def _open_once(self, kind: str, block: Block) -> bytes:
        if self._open == kind:
            return b""
        written = self._close()
        self._open = kind
        return written + as_event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open, at = "", self._blocks
        self._blocks += 1
        return as_event({"type": "content_block_stop", "index": at})

    def _delta(self, delta: Block) -> bytes:
        return as_event({"type": "content_block_delta", "index": self._blocks, "delta": delta})


def _new_message(model: str) -> dict[str, Any]:
    return {"id": _make_id("msg"), "type": "message", "role": "assistant", "model": model}


def _make_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _reason(finish: str) -> str:
    return _REASONS.get(finish, "end_turn")


def _call_block(call: AnsweredCall) -> Block:
    try:
        value = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        # Nobody can call what was cut off: it stays a text.
        return {"type": "text", "text": call.arguments}
    return {"type": "tool_use", "id": call.id or _make_id("toolu"), "name": call.name, "input": value}


def _write_usage(tokens: TokenCounts) -> dict[str, int]:
    return {
        "input_tokens": tokens.prompt - tokens.cached,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": tokens.completion,
    }
