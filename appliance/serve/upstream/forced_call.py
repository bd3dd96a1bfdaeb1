"""An answer that a schema made a call: written as the call of a tool that clients expect."""

from __future__ import annotations

import json
import secrets
from typing import Any


def make_call(answer: dict[str, Any], forced: str) -> dict[str, Any]:
    """Turn the text of each choice into a call of a tool.

    Args:
        answer: of the engine's route for chats, whole.
        forced: the function's name; empty where the text names it itself.

    Returns:
        The answer. A text that was cut off stays an answer with a text: nobody can call what is half a call.
    """
    return {**answer, "choices": [_make_choice(choice, forced) for choice in answer.get("choices", ())]}


def _make_choice(choice: dict[str, Any], forced: str) -> dict[str, Any]:
    message = choice.get("message") or {}
    try:
        value = json.loads(message.get("content") or "")
        name, arguments = (forced, value) if forced else (value["name"], value["arguments"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return choice
    text = json.dumps(arguments, ensure_ascii=False)
    call = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": {"name": name, "arguments": text}}
    return {**choice, "finish_reason": "tool_calls", "message": {**message, "content": None, "tool_calls": [call]}}
