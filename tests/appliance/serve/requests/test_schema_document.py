"""Schemas that end llama.cpp's converter, or keep it busy for ever. Each was tried on the engine itself."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.serve.requests.answer_schema import check_schemas
from appliance.serve.requests.refusal import Refusal

TEXT = {"type": "string"}


def nested(schema: dict[str, Any], times: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": nested(schema, times - 1)}} if times else schema


def definitions(count: int, **parts: Any) -> dict[str, Any]:
    """`a0` leads to `a1`, and so on; each is made of `parts`, where `next` is a reference to the one that follows."""
    made: dict[str, Any] = {}
    for at in range(count):
        following = {"$ref": f"#/$defs/a{at + 1}"}
        made[f"a{at}"] = {name: [following if one == "next" else one for one in part] for name, part in parts.items()}
    return {"$defs": {**made, f"a{count}": TEXT}, "$ref": "#/$defs/a0"}


def refusal(schema: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(Refusal) as caught:
        check_schemas([("f", schema)])
    return caught.value.code, caught.value.param


@pytest.mark.parametrize(
    ("schema", "code", "field"),
    [
        # SIGSEGV: walked by recursion without an end.
        ({"allOf": [{"$ref": "#/allOf/0"}]}, "schema_refused", "f.allOf[0]"),
        (
            {
                "$defs": {"A": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/A"}]}}}},
                "$ref": "#/$defs/A",
            },
            "schema_refused",
            "f.$defs.A",
        ),
        ({"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/anyOf/0"}]}, "schema_refused", "f.anyOf[0]"),
        # SIGSEGV: a regular expression of the converter walks each letter of a name by recursion.
        ({"properties": {"é" * 60_000: TEXT}}, "schema_refused", "f.properties"),
        # For ever: a count whose end comes before its beginning, and a number longer than its digits.
        ({"type": "string", "minLength": 5, "maxLength": 2}, "schema_refused", "f.minLength"),
        ({"type": "array", "items": TEXT, "minItems": 5, "maxItems": 2}, "schema_refused", "f.minItems"),
        ({"type": "integer", "minimum": 10**17}, "schema_refused", "f.minimum"),
        ({"type": "integer", "exclusiveMaximum": -1e300}, "schema_refused", "f.exclusiveMaximum"),
        # For ever: every reference is followed anew.
        (definitions(30, anyOf=["next", "next"]), "schema_too_large", "f"),
        (definitions(30, allOf=["next", "next"]), "schema_too_large", "f"),
        (definitions(2500, anyOf=["next"]), "schema_too_large", "f"),
        (nested({"type": ["object", "object"]}, 3), "schema_refused", "f.properties.a.properties.a.properties.a.type"),
        # A reference to what was not checked as a schema.
        ({"$ref": "#/default", "default": {"pattern": "^((x{0,9}){0,9}){0,9}$"}}, "schema_refused", "f.$ref"),
        ({"$ref": "#/$defs/a/b", "$defs": {"a/b": TEXT, "a": {"b": {}}}}, "schema_refused", "f.$ref"),
        ({"$ref": "#/$defs/nothing"}, "schema_refused", "f.$ref"),
        ({"$ref": "#"}, "schema_refused", "f.$ref"),
        ({"$ref": 5}, "schema_refused", "f.$ref"),
        ({"type": "text"}, "schema_refused", "f.type"),
        ({"type": []}, "schema_refused", "f.type"),
    ],
)
def test_schema_that_the_engine_does_not_survive_is_refused(schema: dict[str, Any], code: str, field: str) -> None:
    assert refusal(schema) == (code, field)


@pytest.mark.parametrize(
    "schema",
    [
        # As pydantic writes models that hold one another, themselves, or perhaps nothing.
        {
            "$defs": {"Node": {"properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}},
            "$ref": "#/$defs/Node",
        },
        {"$defs": {"A": {"type": "object"}}, "properties": {"a": {"allOf": [{"$ref": "#/$defs/A"}], "title": "A"}}},
        {"properties": {f"p{at}": {"type": "integer", "minimum": 0, "maximum": 100} for at in range(60)}},
        {"type": ["string", "null"], "format": "date-time"},
        {"type": "array", "items": [{"type": "string"}, {"$ref": "#/items/0"}], "minItems": 2, "maxItems": 2},
        {"const": {"$ref": "#/nothing", "type": "text"}},
        nested(TEXT, 15),
    ],
)
def test_schema_that_clients_send_passes(schema: dict[str, Any]) -> None:
    check_schemas([("f", schema)])


def test_pattern_is_written_as_the_engine_has_it() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"pattern": r"^\d{3}$"}, "pattern": {"const": {"pattern": r"^\d$"}}}}
    check_schemas([("f", schema)])
    assert schema["properties"]["a"]["pattern"] == "^[0-9]{3}$"
    assert schema["properties"]["pattern"] == {"const": {"pattern": r"^\d$"}}


def test_bound_that_a_schema_library_writes_for_none_costs_nothing() -> None:
    whole = {"type": "integer", "minimum": -(2**53 - 1), "maximum": 2**53 - 1}
    properties: dict[str, dict[str, Any]] = {f"p{at}": {**whole} for at in range(40)}
    properties["q"] = {"type": "integer", "exclusiveMinimum": 0, "maximum": 2**53 - 1}
    check_schemas([("f", {"type": "object", "properties": properties})])
    assert properties["p0"] == {"type": "integer"}
    assert properties["q"] == {"type": "integer", "exclusiveMinimum": 0}
