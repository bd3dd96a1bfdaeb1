"""The schemas that an answer has to follow: how much of a grammar an engine makes of them.

An engine turns schemas into a grammar and walks it between two tokens, for all users at once, uninterrupted. So its
size is bounded here, by counting the rules that llama.cpp's converter would make; nothing is timed (threat T80).

Rules:
- only what stands in the place of a schema is one: a word like `pattern` inside `default`, `const`, `enum` or
  `examples` is text;
- a reference stays inside its document, so nothing is fetched;
- a pattern has no groups: a few of them, repeated within one another, have the effect of a huge grammar.
"""

from __future__ import annotations

from typing import Any

from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.refusal import Refusal, refused_field
from appliance.serve.requests.schema_document import LISTS, MAPS, SINGLE, SchemaDocument

MAX_SCHEMA_BYTES = 128 << 10
"""Of all schemas of a request together."""
MAX_RULES = 4000
"""Of the grammar of all schemas of a request together."""


def check_schemas(schemas: list[tuple[str, dict[str, Any]]]) -> None:
    """Check all schemas of a request, and write their patterns as the engine's grammars have them.

    Args:
        schemas: each with the field that holds it; not deeper than a body may be. Patterns are changed in place.

    Raises:
        Refusal: they are too long, make too large a grammar, or one has a part that is not supported.
    """
    if sum(len(to_json(schema)) for _, schema in schemas) > MAX_SCHEMA_BYTES:
        message = f"Tools and the form of an answer may take {MAX_SCHEMA_BYTES >> 10} KiB together."
        raise Refusal(400, "schema_too_long", message, param=schemas[0][0])
    rules = 0
    for field, schema in schemas:
        document = SchemaDocument(schema, field)
        if rules + document.rules > MAX_RULES:
            message = f"Tools and the form of an answer make a grammar of more than {MAX_RULES} rules."
            raise refused_field("schema_too_large", document.path_beyond(MAX_RULES - rules), message)
        rules += document.rules


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
    for name in (name for name in MAPS if isinstance(moved.get(name), dict)):
        moved[name] = {key: move_schema(part, place) for key, part in moved[name].items()}
    for name in (name for name in (*LISTS, *SINGLE) if name in moved):
        part = moved[name]
        moved[name] = [move_schema(one, place) for one in part] if isinstance(part, list) else move_schema(part, place)
    return moved
