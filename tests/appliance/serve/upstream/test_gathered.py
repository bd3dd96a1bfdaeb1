"""Whole answers gathered from a stream: what the engine gives in one part, and an error where the stream has no end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.serve.upstream.answer import Answer
from appliance.serve.upstream.connection import LostError, Reply
from appliance.serve.upstream.gathered import read_gathered

HEAD = {"id": "chatcmpl-1", "created": 5, "model": "toy", "system_fingerprint": "b1", "object": "chat.completion.chunk"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 2}}
TIMINGS = {"cache_n": 2, "prompt_n": 1, "predicted_n": 5}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: object) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


PROGRESS = chunk({"role": "assistant", "content": None}, prompt_progress={"total": 9, "cache": 0, "processed": 4})
LAST = [chunk({}, "stop"), {**HEAD, "choices": [], "usage": USAGE, "timings": TIMINGS}]


def stream(*events: object, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + end


def gather(data: bytes, size: int = 1 << 20, media_type: str = "text/event-stream") -> Answer:
    async def blocks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    seen: list[bytes] = []
    answer = asyncio.run(read_gathered(Reply(200, media_type, blocks()), seen.append))
    assert not seen or b"".join(seen) == data
    return answer


def value(*events: object) -> dict[str, Any]:
    answer = gather(stream(*events))
    assert (answer.status, answer.media_type) == (200, "application/json")
    return dict(json.loads(answer.body))


def test_chat_has_its_text_its_thoughts_and_its_usage() -> None:
    deltas = [{"reasoning_content": "hm"}, {"reasoning_content": "m"}, {"content": "Par"}, {"content": "is"}]
    message = {"role": "assistant", "content": "Paris", "reasoning_content": "hmm"}
    assert value(PROGRESS, *map(chunk, deltas), *LAST) == {
        **HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        "timings": TIMINGS,
    }


def test_calls_are_put_together_by_their_index() -> None:
    calls = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f"}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    found = value(*(chunk({"tool_calls": [call]}) for call in calls), chunk({}, "tool_calls"))
    choice = found["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "")
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_completion_is_text() -> None:
    head = {**HEAD, "object": "text_completion"}
    parts = [{**head, "choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("ab", "c", "")]
    parts[-1]["choices"][0]["finish_reason"] = "length"  # type: ignore[index]
    choice = {"index": 0, "text": "abc", "logprobs": None, "finish_reason": "length"}
    assert value(*parts) == {**head, "choices": [choice]}


def test_error_of_the_engine_is_its_status_and_a_template_that_refuses_is_a_mistake_of_the_user() -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error"}
    answer = gather(stream(chunk({"content": "x"}), {"error": error}, end=b""))
    assert (answer.status, json.loads(answer.body)) == (400, {"error": error})
    answer = gather(stream({"error": {"code": 500, "message": "Compute error."}}, end=b""))
    assert answer.status == 500
    answer = gather(stream({"error": {"code": 500, "message": "Jinja: no such role"}}, end=b""))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "messages_refused")


def test_answer_in_one_part_is_read_as_it_is() -> None:
    assert gather(b'{"a":1}', media_type="application/json").body == b'{"a":1}'


@pytest.mark.parametrize(
    "data",
    [
        stream(chunk({"content": "x"}), *LAST, end=b""),
        stream(chunk({"content": "x"})),
        b"",
        b"data: {\n\n",
        b"data: []\n\n",
        b'data: {"error": 5}\n\n',
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{}]}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}\n\n',
        b"data: " + b"x" * (300 << 10),
    ],
)
def test_stream_without_its_end_or_without_sense_is_no_answer(data: bytes) -> None:
    with pytest.raises(LostError):
        gather(data)


@given(some.integers(1, 200), some.lists(some.text(max_size=20), max_size=8))
def test_where_blocks_end_does_not_matter(size: int, texts: list[str]) -> None:
    data = stream(*(chunk({"content": text}) for text in texts), *LAST)
    answer = gather(data, size)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "".join(texts)
