"""What a request may be: its size, its time, its fields.

Owns the caps on what users send (threats T6, T37). The engine sees only what passed here, spelled anew, so that no two
parsers can read one body differently.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from appliance.serve.replies import Refusal, spell

MAX_BODY_BYTES = 8 << 20
BODY_TIMEOUT_S = 60.0
_ENGINE_ONLY = ("id_slot", "lora")
"""Fields that reach into the engine: another conversation's slot, or weights that nobody signed for this name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request that has passed: the model that it names, and the body for the engine."""

    model: str
    body: bytes


async def read_question(request: Request) -> Question:
    """Read and check the body of a request.

    Raises:
        Refusal: too long, too slow, no JSON object, without a model, or with a field that is not for users.
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
        raise Refusal(400, "model_missing", "Say which model to use: a text in the field 'model'.", param="model")
    for name in _ENGINE_ONLY:
        if name in value:
            raise Refusal(400, "field_refused", f"The field {name!r} cannot be used here.", param=name)
    return Question(model, spell(value))


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
