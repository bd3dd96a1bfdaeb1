"""JSON Schema. Its library takes three seconds to import, so it is loaded by the first test that needs it."""

from __future__ import annotations

from typing import Any


def require_valid(value: object, schema: dict[str, Any]) -> None:
    """Check a value against a schema, and that against the schema of schemas.

    Raises:
        jsonschema.ValidationError: the value does not follow the schema.
        jsonschema.SchemaError: the schema itself is not valid.
    """
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(value)


def is_valid(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value follows a schema."""
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(schema).is_valid(value))
