"""Tokens are read from what an engine answers, however its stream is cut into blocks, and whatever it holds."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.serve.upstream.token_usage import MAX_EVENT_BYTES, StreamMeter, TokenUsage, read_usage

TIMINGS = {"cache_n": 10, "prompt_n": 2, "predicted_n": 7, "predicted_per_token_ms": 50.0}


def stream(*events: Any) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b": ping\n\ndata: [DONE]\n\n"


def measure(*blocks: bytes) -> StreamMeter:
    meter = StreamMeter()
    for block in blocks:
        meter.feed(block)
    return meter


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 5}}, TokenUsage(3, 5)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, TokenUsage(3, 0)),
        ({"timings": TIMINGS}, TokenUsage(12, 7, 0.05, 10)),
        ({"usage": {"prompt_tokens": 12, "completion_tokens": 7}, "timings": TIMINGS}, TokenUsage(12, 7, 0.05, 10)),
        ({"timings": {**TIMINGS, "predicted_n": 0}}, TokenUsage(12, 0, None, 10)),
        ({"timings": {**TIMINGS, "predicted_per_token_ms": float("nan")}}, TokenUsage(12, 7, None, 10)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, TokenUsage(0, 0)),
        ({"usage": {"prompt_tokens": "3", "completion_tokens": 1e300}}, TokenUsage(0, 0)),
        ({"usage": {"prompt_tokens": 10**400, "completion_tokens": 5}}, TokenUsage(0, 5)),
        ({"timings": {**TIMINGS, "predicted_per_token_ms": 10**400}}, TokenUsage(12, 7, None, 10)),
        ({"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}}, TokenUsage(9, 0, None, 4)),
        ({"usage": None, "timings": []}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_of_an_answer(value: Any, usage: TokenUsage | None) -> None:
    assert read_usage(value) == usage


@given(cuts=some.lists(some.integers(0, 400)))
def test_stream_counts_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    data = stream({"choices": ["a"]}, {"choices": ["\\n"]}, {"choices": [], "timings": TIMINGS})
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    meter = measure(*(data[start:end] for start, end in pairwise(at)))
    assert (meter.events, meter.usage()) == (3, TokenUsage(12, 7, 0.05, 10))


def test_stream_that_breaks_off_counts_its_events() -> None:
    assert measure(stream({"a": 1}, {"a": 2})[:20]).usage() == TokenUsage(0, 1)
    assert measure(b"data: [\n" * 3).usage() == TokenUsage(0, 3)
    assert measure().usage() == TokenUsage(0, 0)


def test_long_event_is_counted_and_not_kept() -> None:
    blocks = [b"data: {", *[b"x" * 65536] * (MAX_EVENT_BYTES // 65536 + 40), b"}\n\n"]
    meter = StreamMeter()
    for block in blocks:
        meter.feed(block)
        assert len(meter._rest) <= MAX_EVENT_BYTES + 65536
    assert (meter.events, meter.usage()) == (1, TokenUsage(0, 1))
    meter.feed(stream({"timings": TIMINGS}))
    assert (meter.events, meter.usage()) == (2, TokenUsage(12, 7, 0.05, 10))
