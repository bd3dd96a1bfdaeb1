"""An engine's answer to a chat, whole, as the parts that every dialect writes in its own way.

An engine is verified, but what it answers is not trusted: what has another shape is taken for an engine that is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from appliance.serve.upstream.connection import LostError


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call of a function.

    Args:
        id: of the call.
        name: of the function.
        arguments: a JSON object as a text; one that was cut off is no JSON.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one answer.

    Args:
        prompt: of what was asked, with those that the engine had read before.
        cached: those of them that the engine had read before.
        completion: of the answer.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model answered.

    Args:
        text: empty where there is none.
        reasoning: what it wrote before the answer, where its template marks that.
        calls: of functions.
        finish: of OpenAI: `stop`, `length` or `tool_calls`.
        tokens: how many it took.
        logprobs: of each token, as OpenAI has them.
    """

    text: str
    reasoning: str
    calls: tuple[AnsweredCall, ...]
    finish: str
    tokens: TokenCounts
    logprobs: list[Any] = field(default_factory=list)


def read_answer(value: dict[str, Any]) -> ModelAnswer:
    """Read the one choice of a whole answer.

    Args:
        value: of the engine's route for chats, parsed.

    Raises:
        LostError: it has no choice, or one of another shape.
    """
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise LostError("an answer without a choice")
    message = as_object(choice.get("message"))
    calls = [_read_call(as_object(one)) for one in as_list(message.get("tool_calls"))]
    return ModelAnswer(
        as_text(message.get("content")),
        as_text(message.get("reasoning_content")),
        tuple(calls),
        as_text(choice.get("finish_reason")) or "stop",
        read_counts(as_object(value.get("usage"))),
        as_list(as_object(choice.get("logprobs")).get("content")),
    )


def read_counts(usage: dict[str, Any]) -> TokenCounts:
    """Read OpenAI's `usage`; a number that is none counts as 0."""
    details = as_object(usage.get("prompt_tokens_details"))
    prompt, cached = _count(usage.get("prompt_tokens")), _count(details.get("cached_tokens"))
    return TokenCounts(prompt, min(cached, prompt), _count(usage.get("completion_tokens")))


def as_object(value: object) -> dict[str, Any]:
    """An object of an answer; null counts as an empty one.

    Raises:
        LostError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise LostError("an answer of another shape")
    return value


def as_list(value: object) -> list[Any]:
    """A list of an answer; null counts as an empty one.

    Raises:
        LostError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise LostError("an answer of another shape")
    return value


def as_text(value: object) -> str:
    """A text of an answer; null counts as an empty one.

    Raises:
        LostError: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LostError("an answer of another shape")
    return value


def _read_call(call: dict[str, Any]) -> AnsweredCall:
    function = as_object(call.get("function"))
    return AnsweredCall(as_text(call.get("id")), as_text(function.get("name")), as_text(function.get("arguments")))


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 31 else 0
