"""JSON from outside: parsed once, strictly, and no deeper than an engine can walk.

Rules:
- only what RFC 8259 allows: no NaN, no Infinity, no number that a float cannot hold;
- depth is bounded before anything walks a value by recursion, inside texts that the engine will parse, too;
- what passes is serialized anew, so that no two parsers can read one text differently.
"""

from __future__ import annotations

import json
import math
from typing import Any

from appliance.serve.requests.refusal import Refusal, refused_field

MAX_DEPTH = 32
"""Objects and lists within one another. An engine walks them by recursion."""


def parse_json(data: bytes | str, field: str | None = None) -> Any:
    """Parse JSON.

    Args:
        data: untrusted.
        field: where it was found; None for the body of a request.

    Raises:
        Refusal: it is no JSON, or deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise _not_json(field) from None
    if is_deeper(value, MAX_DEPTH):
        where = "The body" if field is None else f"The field {field!r}"
        message = f"{where} may hold objects and lists {MAX_DEPTH} deep."
        raise Refusal(400, "too_deep", message, param=field)
    return value


def to_json(value: Any) -> bytes:
    """Serialize a value as JSON in UTF-8, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def is_deeper(value: object, most: int) -> bool:
    """Whether a value has objects and lists more than so deep within one another; walks it layer by layer."""
    layer = [value]
    for _ in range(most):
        layer = [
            inner
            for one in layer
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return False
    return True


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _not_json(field: str | None) -> Refusal:
    if field is None:
        return Refusal(400, "invalid_json", "The body is not JSON.")
    return refused_field("invalid_json", field, f"The field {field!r} must hold JSON as a text.")
