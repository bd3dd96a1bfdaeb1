"""T142: an answer that breaks off, or is no chat, is shown in another dialect as if it were complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from appliance.serve.dialects.chat_stream import ChatStream
from appliance.serve.dialects.messages_answer import MessageStream
from appliance.serve.dialects.responses_answer import ResponseBody, ResponseStream
from appliance.serve.upstream.connection import LostError
from tests.attacks.harness import guard_off, row

ROW = row(142)
FORMS: list[Any] = [lambda: ResponseStream("toy", ResponseBody({"model": "toy"})), lambda: MessageStream("toy")]
HALF = {"choices": [{"delta": {"content": "Never mix these two substances"}, "finish_reason": None}]}
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
GOOD = ("response.completed", "message_stop")
BAD = ("response.failed", "error")
CALL = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}
form_of_each = pytest.mark.parametrize("form", FORMS)


def block(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def kinds(written: bytes) -> list[str]:
    return [json.loads(line[6:])["type"] for line in written.splitlines() if line.startswith(b"data: ")]


@form_of_each
def test_unattacked_a_whole_answer_ends_as_one(form: Callable[[], ChatStream]) -> None:
    stream = form()
    assert kinds(stream.feed(block(HALF, END), 0) + stream.end())[-1] in GOOD
    assert not stream.has_failed


@form_of_each
def test_attacked_by_a_stream_that_does_not_state_its_end(form: Callable[[], ChatStream]) -> None:
    stream = form()
    assert not {*GOOD, *BAD} & {*kinds(stream.feed(block(HALF), 0))}
    with pytest.raises(LostError):
        stream.end()


@form_of_each
@pytest.mark.parametrize(
    "event",
    [
        {"error": {"code": 500, "message": "Compute error."}},
        {"error": None},
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"delta": {"content": ["x"]}}]},
        {"choices": [{"delta": {"tool_calls": [{**CALL, "index": 3}]}}]},
        {"choices": [{"delta": {"tool_calls": [CALL, {**CALL, "index": 2}]}}]},
        {"choices": [{"delta": {"tool_calls": [{**CALL, "index": "0"}]}}]},
        {"choices": [{"delta": {}, "finish_reason": 1}]},
        [],
        "x",
    ],
)
def test_attacked_by_an_event_that_is_no_chat(form: Callable[[], ChatStream], event: Any) -> None:
    """What came before it is kept, the error is the last event, and nothing comes after it."""
    stream = form()
    written = kinds(stream.feed(block(HALF, event, END), 0))
    assert stream.has_failed
    assert written[-1] in BAD
    assert any("delta" in kind for kind in written)
    assert not {*GOOD} & {*written}
    assert stream.feed(block(HALF, END), 0) == b""


@form_of_each
def test_attacked_by_a_line_without_end(form: Callable[[], ChatStream]) -> None:
    stream = form()
    written = [kinds(stream.feed(b"data: " + b"x" * (100 << 10), 0)) for _ in range(3)]
    assert written[-1][-1] in BAD


@form_of_each
def test_unguarded_half_an_answer_is_taken_for_a_whole_one(form: Callable[[], ChatStream]) -> None:
    def end(stream: ChatStream) -> bytes:
        return stream.begin_once() + stream.finish("stop", stream._tokens)

    stream = form()
    with guard_off(ROW.guard, end):
        written = kinds(stream.feed(block(HALF), 0) + stream.end())
    assert written[-1] in GOOD
