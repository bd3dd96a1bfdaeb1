"""Whole answers of an engine, read within a limit. A user's own mistake is no failure of the engine.

An engine is verified, but what it answers is not trusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.refusal import Refusal
from appliance.serve.upstream.connection import LostError, Reply

MAX_ANSWER_BYTES = 64 << 20
MAX_MESSAGE_CHARS = 2000
_LOADING = 503
_FAILURES = (
    *("The model produced output", "Compute error", "Invalid input batch", "Context size has been", "got exception"),
    *(
        "context shift",
        "pre_decode()",
        "decode()",
        "post_decode()",
        "the current context does not support",
        "unknown error",
    ),
)
"""How llama-server begins its message where it failed itself."""
_NO_SUCH_TOKEN = "_M_range_check"
"""In the message of `/detokenize` for a number beyond the vocabulary: the vocabulary is a checked vector of C++."""


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
        LostError: it has no end, or breaks off; or the engine still loads, and answers everything with 503.
    """
    if reply.status == _LOADING:
        raise LostError("an engine that still loads")
    data = bytearray()
    async for block in reply.blocks:
        data += block
        if len(data) > MAX_ANSWER_BYTES:
            raise LostError("an answer without end")
    answer = Answer(reply.status, reply.media_type, bytes(data))
    return as_mistake(answer) if reply.status == 500 else answer


def parse_answer(answer: Answer) -> dict[str, Any] | None:
    """The JSON object that an answer holds; None where it holds none."""
    if not answer.media_type.startswith("application/json"):
        return None
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def as_mistake(answer: Answer) -> Answer:
    """An error 500 as the mistake of a user that it mostly is: a chat template that refuses the messages.

    The same request would fail again, and clients repeat a request after a 5xx.
    """
    error = (parse_answer(answer) or {}).get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    if not message or message.startswith(_FAILURES):
        return answer
    if _NO_SUCH_TOKEN in message:
        refusal = Refusal(400, "invalid_field", "A token is not one of this model's.", param="tokens")
        return Answer(400, "application/json", to_json(refusal.body()))
    refusal = Refusal(400, "messages_refused", message[:MAX_MESSAGE_CHARS], param="messages")
    return Answer(400, "application/json", to_json(refusal.body()))
