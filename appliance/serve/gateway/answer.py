"""Whole answers of an engine: read within a limit, and with a user's own mistakes told from its failures.

An engine is verified, but what it answers is not trusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from appliance.serve.gateway.upstream import LostError, Reply

MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine answered.

    Args:
        status: of HTTP.
        media_type: of the body.
        body: whole.
    """

    status: int
    media_type: str
    body: bytes


async def read_whole(reply: Reply) -> Answer:
    """Read the body of a reply.

    Raises:
        LostError: it has no end, or breaks off.
    """
    data = bytearray()
    async for block in reply.blocks:
        data += block
        if len(data) > MAX_ANSWER_BYTES:
            raise LostError("an answer without end")
    # What a chat template refuses is an error 500 of the engine. The same request would fail again, and clients repeat
    # a request after a 5xx.
    status = 400 if reply.status == 500 else reply.status
    return Answer(status, reply.media_type, bytes(data))


def parse_answer(answer: Answer) -> dict[str, Any] | None:
    """The JSON object that an answer holds; None where it holds none."""
    if not answer.media_type.startswith("application/json"):
        return None
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
