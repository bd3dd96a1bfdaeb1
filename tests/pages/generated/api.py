"""`docs/api.md`: every operation of the gateway's API and every field of a request, from the description it serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from appliance.serve.gateway.description import description

INTRODUCTION = """# The API

For people who write programs: every route of the gateway, every field that a request may hold, and every answer.
[user.md](user.md) has examples, and what each error means.

The same description, as OpenAPI 3.1, is at `/openapi.json` of every appliance. It is generated from the models that
check requests, and needs no key. Any other field is refused with `unknown_field`.

"""


def page() -> str:
    """The text, from the description."""
    document = json.loads(description())
    schemas = document["components"]["schemas"]
    return INTRODUCTION + "\n".join("".join(part) for part in (_operations(document), _schemas(schemas)))


def _operations(document: dict[str, Any]) -> Iterator[str]:
    yield "## Routes\n\n| route | what it does | key | body | answer | errors |\n|---|---|---|---|---|---|\n"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            answers = " or ".join(
                _type(media["schema"]) if media.get("schema", {}).get("$ref") else f"`{kind}`"
                for kind, media in operation["responses"]["200"]["content"].items()
            )
            errors = ", ".join(status for status in operation["responses"] if status != "200")
            key = "yes" if "security" in operation else "no"
            cells = (
                f"`{method.upper()} {path}`",
                operation["summary"],
                key,
                _type(body) if body else "",
                answers,
                errors,
            )
            yield f"| {' | '.join(cells)} |\n"


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f"## {name}\n\n"
        if "description" in schema:
            yield f"{_sentences(schema['description'])}\n\n"
        yield "| field | type | needed | default |\n|---|---|---|---|\n"
        for field, one in schema.get("properties", {}).items():
            needed = "yes" if field in schema.get("required", ()) else "no"
            default = f"`{json.dumps(one['default'])}`" if "default" in one else ""
            yield f"| `{field}` | {_type(one)} | {needed} | {default} |\n"
        yield "\n"


def _sentences(text: str) -> str:
    return " ".join(text.split())


def _type(schema: dict[str, Any]) -> str:
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[choice] if one != {"type": "null"}))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    return _plain_type(schema)


def _plain_type(schema: dict[str, Any]) -> str:
    kinds = schema.get("type", "any value")
    kind = " or ".join(one for one in kinds if one != "null") if isinstance(kinds, list) else kinds
    if kind == "array":
        kind = f"list of {_type(schema['items'])}" if "items" in schema else "list"
    bounds = [
        f"{word} {schema[name]}"
        for name, word in (
            *(("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("minLength", "from")),
            *(("maxLength", "to"), ("minItems", "from"), ("maxItems", "to"), ("maxProperties", "to")),
        )
        if name in schema
    ]
    units = {"list": " items", "string": " characters", "object": " names"}
    unit = units.get(str(kind).split(" ")[0], "")
    return f"{kind} {' '.join(bounds)}{unit}" if bounds else str(kind)
