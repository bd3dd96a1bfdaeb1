"""Limits of a request: its size, its time, its fields.

Owns the limits of what users send (threats T6, T37). The engine gets only what passed here, serialized anew, so that no
two parsers can read one body differently.

Rules:
- a request is one piece of work: one answer to one prompt, or the embeddings of so many texts. The queue of an engine
  counts requests: a user who could pack a hundred into one would pass everybody;
- what makes an engine compute between two tokens is small: it does that for all users at once, uninterrupted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from appliance.serve.gateway.replies import Refusal, to_json

MAX_BODY_BYTES = 8 << 20
BODY_TIMEOUT_S = 60.0
MAX_DEPTH = 32
"""Objects and lists within one another. An engine walks them by recursion."""
MAX_TEXTS = 2048
"""Of one request for embeddings, as OpenAI has it."""
MAX_LOGPROBS = 20
"""Of each token, as OpenAI has it. An engine by itself gives the whole vocabulary."""
MAX_SCHEMA_BYTES = 32 << 10
"""Of all that an answer must follow: an engine makes a grammar of it."""
MAX_PROPERTIES = 100
"""Of one object: an engine's grammar grows with the square of those that may be left out."""
MAX_PATTERN = 200
"""Characters of a regular expression in there. It may have no groups: a few of them, repeated within one another, have
the effect of such a grammar."""
_ENGINE_ONLY = ("id_slot", "lora", "grammar", "grammar_lazy", "grammar_triggers")
"""Fields that reach into the engine: another conversation's slot, weights that nobody signed for this name, a grammar.
A few lines of a grammar end an engine or keep it busy for ever."""
_ANSWERS = ("n", "n_cmpl")
_LOGPROBS = ("logprobs", "top_logprobs", "n_probs")
_SCHEMAS = ("response_format", "json_schema", "tools", "functions")


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request within all limits.

    Args:
        model: the model that it names, which need not exist.
        body: JSON for the engine.
    """

    model: str
    body: bytes


async def read_request(request: Request) -> CheckedRequest:
    """Read and check the body of a request.

    Args:
        request: untrusted; its body is not read yet.

    Raises:
        Refusal: the body is too long, too slow or no JSON object, names no model, or has a field that is not for users.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_long()
    try:
        data = await asyncio.wait_for(_read(request), BODY_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise Refusal(408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None
    except ClientDisconnect:
        raise Refusal(400, "body_incomplete", "The connection ended before the body did.") from None
    value = _parse(data)
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "model_missing", "Name the model to use: a text in the field 'model'.", param="model")
    for name in _ENGINE_ONLY:
        if name in value:
            raise Refusal(400, "field_refused", f"The field {name!r} cannot be used here.", param=name)
    _check_work(value)
    return CheckedRequest(model, to_json(value))


def _check_work(value: dict[str, Any]) -> None:
    if _is_deeper(value, MAX_DEPTH):
        raise Refusal(400, "too_deep", f"Objects and lists may be {MAX_DEPTH} deep.")
    for name in _ANSWERS:
        if value.get(name) not in (None, 1):
            raise Refusal(400, "one_answer_each", "A request gets one answer: ask once for each.", param=name)
    if _count(value.get("prompt")) > 1:
        raise Refusal(400, "one_answer_each", "A request gets one answer: send one prompt in each.", param="prompt")
    if _count(value.get("input")) > MAX_TEXTS:
        raise Refusal(400, "too_many_texts", f"A request may hold {MAX_TEXTS} texts: send several.", param="input")
    for name in _LOGPROBS:
        most = value.get(name)
        if most is not None and not (isinstance(most, int) and most <= MAX_LOGPROBS):
            raise Refusal(400, "field_refused", f"The field {name!r} may be at most {MAX_LOGPROBS}.", param=name)
    _check_schemas([value[name] for name in _SCHEMAS if name in value])


def _check_schemas(schemas: list[Any]) -> None:
    if len(to_json(schemas)) > MAX_SCHEMA_BYTES:
        message = f"Tools and the form of an answer may take {MAX_SCHEMA_BYTES >> 10} KiB together."
        raise Refusal(400, "schema_too_long", message)
    for part in _objects(schemas):
        pattern, properties = part.get("pattern"), part.get("properties")
        if isinstance(pattern, str) and ("(" in pattern or len(pattern) > MAX_PATTERN):
            message = f"A pattern may have {MAX_PATTERN} characters, and no groups."
            raise Refusal(400, "pattern_refused", message, param="pattern")
        if isinstance(properties, dict) and len(properties) > MAX_PROPERTIES:
            message = f"An object may have {MAX_PROPERTIES} properties."
            raise Refusal(400, "schema_too_long", message, param="properties")


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a schema, which is not deep."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(one)


def _count(texts: object) -> int:
    """How many texts a field holds: a list of numbers is one text, in tokens."""
    if not isinstance(texts, list) or all(type(one) is int for one in texts):
        return 1
    return len(texts)


def _is_deeper(value: object, most: int) -> bool:
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


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > MAX_BODY_BYTES:
            raise _too_long()
    return bytes(data)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(400, "invalid_json", "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "invalid_json", "The body is not a JSON object.")
    return value


def _too_long() -> Refusal:
    return Refusal(413, "body_too_long", f"The body may be at most {MAX_BODY_BYTES >> 20} MiB.")
