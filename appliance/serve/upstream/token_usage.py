"""How many tokens a request took, read from what the engine answers.

Owns the two places where `llama-server` states them: `usage` of OpenAI, in an answer that is one JSON value, and its
own `timings`, in the last event of every stream. So nothing is added to a user's request, and no event is taken out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 256 << 10
"""What is kept of a stream to be parsed: its last event. Longer ones pass on, and are only counted."""
_MAX_COUNT = 1 << 31
"""Of tokens and milliseconds. A larger number is no count, and a counter could not add it up."""
_DATA, _END = b"data:", b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one request.

    Args:
        prompt: of what the user sent.
        completion: of the answer; 0 for embeddings.
        per_token_s: seconds for each token of the answer; None where the engine did not state it.
        cached: tokens of the prompt that the engine's slot held already.
    """

    prompt: int
    completion: int
    per_token_s: float | None = None
    cached: int = 0

    @property
    def worked(self) -> int:
        """Tokens that the engine has read and written, without those that its slot held already."""
        return max(0, self.prompt - self.cached) + self.completion


def read_usage(value: Any) -> TokenUsage | None:
    """Read the tokens of an answer, or of the last event of a stream.

    Args:
        value: the parsed JSON, which may be anything.

    Returns:
        None where it states none.
    """
    if not isinstance(value, dict):
        return None
    usage, timings = _object(value, "usage"), _object(value, "timings")
    if not usage and not timings:
        return None
    completion = _count(usage, "completion_tokens") or _count(timings, "predicted_n")
    prompt = _count(usage, "prompt_tokens") or _count(timings, "prompt_n") + _count(timings, "cache_n")
    cached = _count(_object(usage, "prompt_tokens_details"), "cached_tokens") or _count(timings, "cache_n")
    milliseconds = timings.get("predicted_per_token_ms")
    if completion and isinstance(milliseconds, int | float) and 0 <= milliseconds < _MAX_COUNT:
        return TokenUsage(prompt, completion, milliseconds / 1000, cached)
    return TokenUsage(prompt, completion, None, cached)


class StreamMeter:
    """Watches a stream of server-sent events without changing it. `has_ended` once it has said that it is complete."""

    def __init__(self) -> None:
        self.events = 0
        self.has_ended = False
        self._last = self._rest = b""
        self._is_too_long = False

    def feed(self, block: bytes) -> None:
        """Take what is passed on next.

        Args:
            block: with any number of lines, which may end or begin in another block.
        """
        *lines, rest = (self._rest + block).split(b"\n")
        for line in lines:
            self.has_ended |= line.startswith(_END)
            if line.startswith(_DATA) and not line.startswith(_END):
                self.events += 1
                self._last = b"" if self._is_too_long else line
            self._is_too_long = False
        self._is_too_long |= len(rest) > MAX_EVENT_BYTES
        # Its beginning still shows what kind of line it is.
        self._rest = rest[: len(_END)] if self._is_too_long else rest

    @property
    def has_failed(self) -> bool:
        """Whether its last event is an error, after which a stream has no other end."""
        event = self._last_event()
        return isinstance(event, dict) and "error" in event

    def usage(self) -> TokenUsage:
        """The tokens so far: what the last event states, else about one for each event."""
        return read_usage(self._last_event()) or TokenUsage(0, self.events)

    def _last_event(self) -> Any:
        try:
            return json.loads(self._last[len(_DATA) :])
        except (ValueError, RecursionError):
            return None


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _count(value: dict[str, Any], name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and 0 <= found < _MAX_COUNT else 0
