"""An answer as `POST /v1/responses` writes it: the response itself, its items, and its events.

Nothing is stored, so `store` is false in every answer, and an identifier here leads nowhere.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from appliance.serve.dialects.answer_form import as_event
from appliance.serve.dialects.chat_answer import AnsweredCall, ModelAnswer, TokenCounts
from appliance.serve.dialects.chat_stream import ChatStream
from appliance.serve.requests.refusal import Refusal

Item = dict[str, Any]
COMPLETED, INCOMPLETE, IN_PROGRESS = "completed", "incomplete", "in_progress"


class ResponseBody:
    """The response, with what it repeats of its request.

    Args:
        echo: fields of the request that a response repeats.
    """

    def __init__(self, echo: Mapping[str, Any]) -> None:
        self._echo = dict(echo)
        self._id, self._created = make_id("resp"), int(time.time())

    def write(
        self,
        status: str,
        output: list[Item],
        tokens: TokenCounts | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The response as a JSON value.

        Args:
            status: `completed`, `incomplete`, `in_progress` or `failed`.
            output: its items.
            tokens: None as long as they are not known.
            error: why it failed.
        """
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == INCOMPLETE else None,
            **self._echo,
            "output": output,
            "usage": None if tokens is None else _write_usage(tokens),
        }

    def write_answer(self, answer: ModelAnswer) -> dict[str, Any]:
        """A whole answer."""
        status = status_of(answer.finish)
        output = [reasoning_item(make_id("rs"), answer.reasoning)] if answer.reasoning else []
        if answer.text or not (answer.calls or answer.reasoning):
            output.append(message_item(make_id("msg"), answer.text, answer.logprobs, status))
        output += [call_item(make_id("fc"), call, status) for call in answer.calls]
        return self.write(status, output, answer.tokens)


class ResponseStream(ChatStream):
    """Translates a stream into the events of Responses.

    Args:
        model: its name.
        body: of this response.
    """

    def __init__(self, model: str, body: ResponseBody) -> None:
        super().__init__(model)
        self._body = body
        self._output: list[Item] = []
        self._number = 0
        self._open = ""
        """The kind of the item that is being written: `reasoning`, `message`, `call`; empty between two."""
        self._item_id = ""
        self._parts: list[str] = []
        self._logprobs: list[Any] = []
        self._named = AnsweredCall("", "", "")

    def begin(self) -> bytes:
        """See `ChatStream`."""
        response = self._body.write(IN_PROGRESS, [])
        return self._event("created", response=response) + self._event("in_progress", response=response)

    def add_reasoning(self, text: str) -> bytes:
        """See `ChatStream`."""
        written = b""
        if self._open != "reasoning":
            item = reasoning_item(make_id("rs"), "", IN_PROGRESS)
            written = self._open_item("reasoning", item) + self._part("added", _reasoning_part(""))
        self._parts.append(text)
        return written + self._delta("reasoning_text.delta", content_index=0, delta=text)

    def add_text(self, text: str, logprobs: list[Any]) -> bytes:
        """See `ChatStream`."""
        written = b""
        if self._open != "message":
            item = {**message_item(make_id("msg"), "", [], IN_PROGRESS), "content": []}
            written = self._open_item("message", item) + self._part("added", _text_part("", []))
        self._parts.append(text)
        self._logprobs += logprobs
        return written + self._delta("output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def begin_call(self, call_id: str, name: str) -> bytes:
        """See `ChatStream`."""
        written = self._close(COMPLETED)
        self._named = AnsweredCall(call_id or make_id("call"), name, "")
        return written + self._open_item("call", call_item(make_id("fc"), self._named, IN_PROGRESS))

    def add_arguments(self, text: str) -> bytes:
        """See `ChatStream`."""
        self._parts.append(text)
        return self._delta("function_call_arguments.delta", delta=text)

    def finish(self, reason: str, tokens: TokenCounts) -> bytes:
        """See `ChatStream`."""
        status = status_of(reason)
        written = b""
        if not (self._output or self._open):
            written = self.add_text("", [])
        written += self._close(status)
        return written + self._event(status, response=self._body.write(status, self._output, tokens))

    def fail(self, refusal: Refusal) -> bytes:
        """See `ChatStream`."""
        error = {"code": refusal.code, "message": refusal.message}
        written = self._event("error", is_bare=True, **error, param=refusal.param)
        return written + self._event("failed", response=self._body.write("failed", self._output, error=error))

    def _open_item(self, kind: str, item: Item) -> bytes:
        written = self._close(COMPLETED)
        self._open, self._item_id = kind, item["id"]
        return written + self._event("output_item.added", output_index=len(self._output), item=item)

    def _close(self, status: str) -> bytes:
        """The events at the end of an item."""
        kind, text, logprobs = self._open, "".join(self._parts), self._logprobs
        if not kind:
            return b""
        if kind == "call":
            item = call_item(self._item_id, AnsweredCall(self._named.id, self._named.name, text), status)
            written = self._delta("function_call_arguments.done", arguments=text)
        elif kind == "message":
            item = message_item(self._item_id, text, logprobs, status)
            written = self._delta("output_text.done", content_index=0, text=text, logprobs=logprobs)
            written += self._part("done", _text_part(text, logprobs))
        else:
            item = reasoning_item(self._item_id, text, status)
            written = self._delta("reasoning_text.done", content_index=0, text=text)
            written += self._part("done", _reasoning_part(text))
        written += self._event("output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._open, self._parts, self._logprobs = "", [], []
        return written

    def _part(self, name: str, part: Item) -> bytes:
        return self._delta(f"content_part.{name}", content_index=0, part=part)

    def _delta(self, name: str, /, **fields: Any) -> bytes:
        return self._event(name, item_id=self._item_id, output_index=len(self._output), **fields)

    def _event(self, name: str, /, *, is_bare: bool = False, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return as_event({"type": name if is_bare else f"response.{name}", "sequence_number": number, **fields})


def status_of(finish: str) -> str:
    """The status of a response whose chat ended so."""
    return INCOMPLETE if finish == "length" else COMPLETED


def make_id(prefix: str) -> str:
    """A new identifier."""
    return f"{prefix}_{secrets.token_hex(16)}"


def reasoning_item(item_id: str, text: str, status: str = COMPLETED) -> Item:
    """What the model wrote before its answer."""
    content = [_reasoning_part(text)] if text else []
    return {"type": "reasoning", "id": item_id, "summary": [], "content": content, "status": status}


def message_item(item_id: str, text: str, logprobs: list[Any], status: str) -> Item:
    """A text of the model."""
    content = [_text_part(text, logprobs)]
    return {"type": "message", "id": item_id, "role": "assistant", "status": status, "content": content}


def call_item(item_id: str, call: AnsweredCall, status: str) -> Item:
    """A call of a function."""
    fields = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"type": "function_call", "id": item_id, **fields, "status": status}


def _text_part(text: str, logprobs: list[Any]) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _reasoning_part(text: str) -> Item:
    return {"type": "reasoning_text", "text": text}


def _write_usage(tokens: TokenCounts) -> dict[str, Any]:
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens.prompt + tokens.completion,
    }
