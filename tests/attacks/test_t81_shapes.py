"""T81: a body is so deep, or has so many values, that to read it ends a program, or blocks it for everybody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from appliance.serve.requests import work
from appliance.serve.requests.json_text import MAX_CONTAINERS, MAX_DEPTH, MAX_MEMBERS, parse_json
from appliance.serve.requests.paths import CHAT, COMPLETIONS, EMBEDDINGS
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import Work, parse_request, plan_work
from tests.attacks.harness import guard_off, row

ROW = row(81)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 0


def tool(default: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": {"default": default}}
    said = [{"role": "user", "content": "x"}]
    return {"model": "toy", "messages": said, "tools": [{"type": "function", "function": function}]}


def sent(path: str, body: Any) -> Work:
    """What an engine would get of the bytes of a body."""
    return plan_work(parse_request(path, parse_json(json.dumps(body).encode())), has_tools=True)


def refusal(path: str, body: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        sent(path, body)
    return caught.value.status, caught.value.code


def test_unattacked_body_of_everyday_depth_passes() -> None:
    assert len(sent(CHAT, tool(nested(MAX_DEPTH - 6))).bodies) == 1
    assert len(sent(EMBEDDINGS, {"model": "toy", "input": [[1] * 400] * 2000}).bodies) == 2000


def test_attacked_by_depth() -> None:
    assert refusal(CHAT, tool(nested(40))) == (400, "too_deep")
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": ' + "[" * 40 + "]" * 40 + "}"}}
    said = {"model": "toy", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    assert refusal(CHAT, said) == (400, "too_deep")


def test_attacked_by_many_values() -> None:
    assert refusal(EMBEDDINGS, {"model": "toy", "input": [[]] * (MAX_CONTAINERS + 1)}) == (400, "too_many_values")
    assert refusal(CHAT, {**tool(0), **dict.fromkeys(map(str, range(MAX_MEMBERS)))}) == (400, "too_many_values")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBEDDINGS, {"model": "toy", "input": [1.5] * 100_000}),
        (EMBEDDINGS, {"model": "toy", "input": ["a"] + [1] * 100_000}),
        (COMPLETIONS, {"model": "toy", "prompt": [[None] * 100] * 1000}),
        (CHAT, {"model": "toy", "messages": [{"role": "user", "content": [{}] * 50}] * 1000}),
        (CHAT, {"model": "toy", "messages": [{"role": "assistant", "tool_calls": [{}] * 100}] * 1000}),
    ],
)
def test_attacked_by_many_faults_the_first_is_enough(path: str, body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[int] = []

    def describe(error: ValidationError, _body: object) -> Refusal:
        described.append(error.error_count())
        return Refusal(400, "many", "")

    monkeypatch.setattr(work, "first_refusal", describe)
    assert refusal(path, body) == (400, "many")
    assert described[0] < 20


def test_unguarded_the_depth_reaches_the_engine() -> None:
    with guard_off(ROW.guard, lambda *_: None):
        [body] = sent(CHAT, tool(nested(40))).bodies
    assert body.count(b"[" * 40) == 1
