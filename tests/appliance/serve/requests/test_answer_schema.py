"""How large a grammar a user may ask for, and what of a schema is text."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.serve.requests.answer_schema import check_schemas, move_schema
from appliance.serve.requests.refusal import Refusal


def refusal(schema: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(Refusal) as caught:
        check_schemas([("f", schema)])
    return caught.value.code, caught.value.param


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{at}": {"type": "string"} for at in range(80)}},
        {"properties": {f"p{at}": {} for at in range(1000)}, "required": [f"p{at}" for at in range(1000)]},
        {"properties": {"pattern": {"const": {"pattern": "((("}}}},
        {"default": {"pattern": "((("}, "enum": [{"pattern": 5}], "examples": [{"pattern": "((("}]},
        {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "maxItems": 1000}}, "$ref": "#/$defs/a"},
        {"type": "string", "pattern": "^[a-z]{4}-[0-9]+$", "description": "x" * 100_000},
        {"properties": {"a": True}, "additionalProperties": False, "items": False},
    ],
)
def test_schema_of_everyday_use_passes(schema: dict[str, Any]) -> None:
    check_schemas([("f", schema)])


@pytest.mark.parametrize(
    ("schema", "code", "field"),
    [
        ({"properties": {f"p{at}": {} for at in range(100)}}, "schema_too_large", "f"),
        ({"enum": list(range(5000))}, "schema_too_large", "f"),
        ({"anyOf": [{"maxItems": 2000}, {"maxLength": 2000}]}, "schema_too_large", "f.anyOf[1]"),
        ({"maxItems": 2001}, "schema_refused", "f.maxItems"),
        ({"minLength": -1}, "schema_refused", "f.minLength"),
        ({"maxLength": 1e9}, "schema_refused", "f.maxLength"),
        ({"items": {"pattern": "(a{0,4}){0,4}"}}, "pattern_refused", "f.items.pattern"),
        ({"properties": {"a": {"pattern": "x" * 201}}}, "pattern_refused", "f.properties.a.pattern"),
        ({"pattern": 5}, "pattern_refused", "f.pattern"),
        ({"$ref": "https://example.com/schema"}, "schema_refused", "f.$ref"),
        ({"description": "x" * (129 << 10)}, "schema_too_long", "f"),
    ],
)
def test_schema_that_makes_too_large_a_grammar_is_refused_with_the_field(
    schema: dict[str, Any], code: str, field: str
) -> None:
    assert refusal(schema) == (code, field)


def test_all_schemas_of_a_request_count_together() -> None:
    one = {"enum": list(range(1500))}
    check_schemas([("a", one), ("b", one)])
    with pytest.raises(Refusal) as caught:
        check_schemas([("a", one), ("b", one), ("c", one)])
    assert caught.value.param == "c"


def test_moved_schema_has_its_own_references() -> None:
    schema = {"$defs": {"a": {"type": "string"}}, "anyOf": [{"$ref": "#/$defs/a"}], "const": {"$ref": "#/x"}}
    moved = move_schema(schema, "/$defs/call0")
    assert moved["anyOf"] == [{"$ref": "#/$defs/call0/$defs/a"}]
    assert moved["const"] == {"$ref": "#/x"}
