"""JSON from outside: parsed once, strictly, and no deeper than an engine can walk (threat T81).

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
MAX_CONTAINERS = 1 << 18
"""Objects and lists of one text, by their opening brackets: each takes more memory than its few bytes."""
MAX_MEMBERS = 4096
"""Names in one object."""


def parse_json(data: bytes | str, field: str | None = None) -> Any:
    """Parse JSON.

    Args:
        data: untrusted.
        field: where it was found; None for the body of a request.

    Raises:
        Refusal: it is no JSON, deeper than `MAX_DEPTH`, or has too many objects, lists or names.
    """
    opening = (b"{", b"[") if isinstance(data, bytes) else ("{", "[")
    if sum(map(data.count, opening)) > MAX_CONTAINERS:  # type: ignore[arg-type]
        raise Refusal(400, "too_many_values", f"JSON may hold {MAX_CONTAINERS} objects and lists.", param=field)
    try:
        value = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise _not_json(field) from None
    check_shape(value, field)
    return value


def check_shape(value: object, field: str | None = None) -> None:
    """Check how deep a value is, and how long its objects are, layer by layer.

    Args:
        value: as `json` gives it.
        field: where it was found; None for the body of a request.

    Raises:
        Refusal: it is deeper than `MAX_DEPTH`, or an object has more than `MAX_MEMBERS` names.
    """
    layer = _containers([value])
    for _ in range(MAX_DEPTH):
        if any(isinstance(one, dict) and len(one) > MAX_MEMBERS for one in layer):
            raise Refusal(400, "too_many_values", f"An object may have {MAX_MEMBERS} names.", param=field)
        layer = [inner for one in layer for inner in _containers(one)]
    if layer:
        where = "The body" if field is None else f"The field {field!r}"
        raise Refusal(400, "too_deep", f"{where} may hold objects and lists {MAX_DEPTH} deep.", param=field)


def to_json(value: Any) -> bytes:
    """Serialize a value as JSON in UTF-8, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def with_fields(body: bytes, fields: dict[str, Any]) -> bytes:
    """Add fields to an object that `to_json` has written, which has others and none of these."""
    return body[:-1] + b"," + to_json(fields)[1:]


def _containers(value: object) -> list[object]:
    """The objects and lists directly in one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in inner if isinstance(one, (dict, list))]


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
