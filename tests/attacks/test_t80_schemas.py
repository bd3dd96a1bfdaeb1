"""T80: a schema of an answer ends the engine, or keeps it busy for ever, for all users. Each was tried on llama.cpp."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.serve.requests.paths import CHAT
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import parse_request, plan_work
from tests.attacks.harness import guard_off, row

ROW = row(80)
TEXT = {"type": "string"}
AGAIN = {f"a{at}": {"anyOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(30)}
ITSELF = {"allOf": [{"$ref": "#/allOf/0"}]}
ENDLESS = [
    ITSELF,
    {"$defs": {"a": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}]}}}}, "$ref": "#/$defs/a"},
    {"properties": {"é" * 60_000: TEXT}},
    {"type": "string", "minLength": 2, "maxLength": 1},
    {"type": "array", "minItems": 2, "maxItems": 1},
    {"type": "string", "pattern": "^a{2,1}$"},
    {"type": "integer", "minimum": 10**17},
    {"$defs": {**AGAIN, "a30": TEXT}, "$ref": "#/$defs/a0"},
    {"$ref": "#/default", "default": {"pattern": "^((x{0,9}){0,9}){0,9}$"}},
]


def sent(schema: dict[str, Any]) -> Any:
    """The schema that an engine would get."""
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"model": "toy", "messages": [{"role": "user", "content": "x"}], "response_format": form}
    [engine_body] = plan_work(parse_request(CHAT, body)).bodies
    return json.loads(engine_body)["response_format"]["json_schema"]["schema"]


def test_unattacked_everyday_schema_reaches_the_engine() -> None:
    node = {"$defs": {"a": {"properties": {"x": {"anyOf": [{"$ref": "#/$defs/a"}, TEXT]}}}}, "$ref": "#/$defs/a"}
    assert sent(node) == node


@pytest.mark.parametrize("schema", ENDLESS, ids=lambda schema: json.dumps(schema)[:40])
@pytest.mark.parametrize("place", ["response_format", "tools"])
def test_attacked_by_a_schema_without_an_end(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(Refusal) as caught:
        if place == "response_format":
            sent(schema)
        else:
            tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
            body = {"model": "toy", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
            plan_work(parse_request(CHAT, body), has_tools=True)
    assert caught.value.status == 400
    assert str(caught.value.param).startswith(place)


def test_unguarded_the_schema_reaches_the_engine() -> None:
    with guard_off(ROW.guard, lambda _schemas: None):
        assert sent(ITSELF) == ITSELF
