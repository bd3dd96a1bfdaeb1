"""The schemas that an answer has to follow: how much of a grammar an engine makes of them.

An engine turns schemas into a grammar and walks it between two tokens, for all users at once, uninterrupted. So its
size is bounded here, by counting the rules that llama.cpp's converter would make; nothing is timed.

Rules:
- only what stands in the place of a schema is one: a word like `pattern` inside `default`, `const`, `enum` or
  `examples` is text;
- a reference stays inside its document, so nothing is fetched;
- a pattern has no groups: a few of them, repeated within one another, have the effect of a huge grammar.

Source: llama.cpp, common/json-schema-to-grammar.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.refusal import Refusal, refused_field

MAX_SCHEMA_BYTES = 128 << 10
"""Of all schemas of a request together."""
MAX_RULES = 4000
"""Of the grammar of all schemas of a request together."""
MAX_REPEATS = 2000
"""Of one item or character: the limit of llama.cpp's grammars."""
MAX_PATTERN_CHARS = 200
_MANY = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")


def check_schemas(schemas: list[tuple[str, dict[str, Any]]]) -> None:
    """Check all schemas of a request.

    Args:
        schemas: each with the field that holds it; not deeper than a body may be.

    Raises:
        Refusal: they are too long, make too large a grammar, or one has a part that is not supported.
    """
    if sum(len(to_json(schema)) for _, schema in schemas) > MAX_SCHEMA_BYTES:
        message = f"Tools and the form of an answer may take {MAX_SCHEMA_BYTES >> 10} KiB together."
        raise Refusal(400, "schema_too_long", message, param=schemas[0][0])
    rules = 0
    for field, schema in schemas:
        for path, part in _parts(schema, field):
            rules += _count_rules(part, path)
            if rules > MAX_RULES:
                message = f"Tools and the form of an answer make a grammar of more than {MAX_RULES} rules."
                raise refused_field("schema_too_large", path, message)


def move_schema(schema: Any, place: str) -> Any:
    """Write a schema so that it may stand inside another document.

    Args:
        schema: checked; its references start at its own beginning.
        place: where it will stand, as the path of a reference: `/$defs/NAME`.
    """
    if not isinstance(schema, dict):
        return schema
    moved = dict(schema)
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"#{place}{reference[1:]}"
    for name in (name for name in _MANY if isinstance(moved.get(name), dict)):
        moved[name] = {key: move_schema(part, place) for key, part in moved[name].items()}
    for name in (name for name in (*_LISTS, *_SINGLE) if name in moved):
        part = moved[name]
        moved[name] = [move_schema(one, place) for one in part] if isinstance(part, list) else move_schema(part, place)
    return moved


def _parts(schema: Any, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, itself included, each with its path."""
    if not isinstance(schema, dict):
        return
    yield field, schema
    for name in _MANY:
        found = schema.get(name)
        for key, part in found.items() if isinstance(found, dict) else ():
            yield from _parts(part, f"{field}.{name}.{key}")
    for name in _LISTS:
        found = schema.get(name)
        for at, part in enumerate(found) if isinstance(found, list) else ():
            yield from _parts(part, f"{field}.{name}[{at}]")
    for name in _SINGLE:
        found = schema.get(name)
        for at, part in enumerate(found if isinstance(found, list) else [found]):
            yield from _parts(part, f"{field}.{name}[{at}]" if isinstance(found, list) else f"{field}.{name}")


def _count_rules(schema: dict[str, Any], field: str) -> int:
    _check_pattern(schema.get("pattern"), f"{field}.pattern")
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise refused_field("schema_refused", f"{field}.$ref", "A reference stays inside its schema: #/$defs/NAME.")
    rules = 1
    for name in _REPEATS:
        count = schema.get(name, 0)
        if type(count) is not int or not 0 <= count <= MAX_REPEATS:
            message = f"The field {name!r} of a schema is a whole number up to {MAX_REPEATS}."
            raise refused_field("schema_refused", f"{field}.{name}", message)
        rules += count
    values = schema.get("enum")
    rules += len(values) if isinstance(values, list) else 0
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, dict):
        needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        optional = len(properties.keys() - needed)
        # One rule for each property, and the converter lists what may follow for each that may be left out.
        rules += len(properties) + optional * optional // 2
    return rules


def _check_pattern(pattern: object, field: str) -> None:
    if pattern is None:
        return
    if not isinstance(pattern, str) or "(" in pattern or len(pattern) > MAX_PATTERN_CHARS:
        message = f"A pattern may have {MAX_PATTERN_CHARS} characters, and no groups."
        raise refused_field("pattern_refused", field, message)
