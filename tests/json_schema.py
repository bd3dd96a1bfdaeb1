"""JSON Schema. Its library is loaded by the first test that needs it, and without its grammar of addresses."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


def require_valid(value: object, schema: dict[str, Any]) -> None:
    """Check a value against a schema, and that against the schema of schemas.

    Raises:
        jsonschema.ValidationError: the value does not follow the schema.
        jsonschema.SchemaError: the schema itself is not valid.
    """
    validator = _validator()
    validator.check_schema(schema)
    validator(schema).validate(value)


def is_valid(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value follows a schema."""
    return bool(_validator()(schema).is_valid(value))


@cache
def _validator() -> Any:
    # This grammar is compiled for four seconds when it is imported. It is for `format`, which no test has checked.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    return Draft202012Validator
