"""The body of a request: its size, its time, its encoding.

Owns the limits of what users send before a field is looked at (threats T6, T37).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request

from appliance.serve.requests.json_text import parse_json
from appliance.serve.requests.refusal import Refusal

MAX_BODY_BYTES = 8 << 20
BODY_TIMEOUT_S = 60.0


async def read_body(request: Request, take: Callable[[int], None]) -> bytes:
    """Read the body of a request.

    Args:
        request: untrusted; its body is not read yet.
        take: called with the length of each part that has come; see `BodyRoom`.

    Raises:
        Refusal: the body is encoded, too long, or too slow, or there is no room for it.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refusal(415, "encoding_unsupported", "Send the body as it is: no content-encoding is supported.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_long()
    try:
        return await asyncio.wait_for(_read(request, take), BODY_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise Refusal(408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None
    except ClientDisconnect:
        raise Refusal(400, "body_incomplete", "The connection ended before the body did.") from None


def parse_body(data: bytes) -> dict[str, Any]:
    """Parse the body of a request.

    Raises:
        Refusal: it is no JSON object, or beyond the limits of `parse_json`.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise Refusal(400, "invalid_json", "The body is not a JSON object.")
    return value


async def _read(request: Request, take: Callable[[int], None]) -> bytes:
    data = bytearray()
    async for block in request.stream():
        take(len(block))
        data += block
        if len(data) > MAX_BODY_BYTES:
            raise _too_long()
    return bytes(data)


def _too_long() -> Refusal:
    return Refusal(413, "body_too_long", f"The body may be at most {MAX_BODY_BYTES >> 20} MiB.")
