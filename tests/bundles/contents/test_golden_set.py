"""A golden set has one form: whatever breaks it is refused with the number of its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.contents.golden_set import (
    MAX_ANSWER_TOKENS,
    MAX_PROMPTS,
    MAX_SET_BYTES,
    GoldenPrompt,
    parse_golden_set,
)
from signing.errors import NotTrustedError

LINE = b'{"prompt":"Name the capital of France.","max_tokens":8,"accept":"Paris"}\n'


def line(**changed: object) -> bytes:
    return json.dumps({"prompt": "a", "max_tokens": 1, "accept": "b", **changed}).encode() + b"\n"


def test_every_line_is_a_prompt_in_order() -> None:
    found = parse_golden_set(LINE + line(), "golden/toy/01.jsonl")
    assert found == (GoldenPrompt("Name the capital of France.", 8, "Paris"), GoldenPrompt("a", 1, "b"))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "1 to 32 lines"),
        (LINE[:-1], "a newline"),
        (LINE + b"\n", "line 2"),
        (LINE * (MAX_PROMPTS + 1), "1 to 32 lines"),
        (b" " * (MAX_SET_BYTES + 1), "at most 65536 bytes"),
        (LINE + b"[]\n", "line 2"),
        (line(hint="x"), "prompt, max_tokens and accept alone"),
        (b'{"prompt":"a","accept":"b"}\n', "prompt, max_tokens and accept alone"),
        (b'{"prompt":"a","prompt":"a","max_tokens":1,"accept":"b"}\n', "line 1"),
        (line(max_tokens=0), "max_tokens from 1"),
        (line(max_tokens=MAX_ANSWER_TOKENS + 1), "max_tokens from 1"),
        (line(max_tokens=True), "max_tokens from 1"),
        (line(prompt=""), "prompt: a text"),
        (line(prompt=["a"]), "prompt: a text"),
        (line(accept="a" * 501), "accept: a text"),
        (line(accept="("), "a regular expression"),
        (line(accept="a{99999999999}"), "a regular expression"),
    ],
)
def test_what_breaks_the_form_is_refused(data: bytes, named: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        parse_golden_set(data, "golden/toy/01.jsonl")
    assert named in f"{caught.value.subject}: {caught.value.expected}"


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda data: LINE + data))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        found = parse_golden_set(data, "golden")
    except NotTrustedError:
        return
    assert found
    assert all(isinstance(one, GoldenPrompt) for one in found)
