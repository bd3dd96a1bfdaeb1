"""Calls of tools as text, for models whose chat template knows none.

Owns how functions are offered to such a model, and how calls and answers of before are shown to it. It writes a call as
a JSON object; `appliance.serve.upstream.forced_call` makes a call of that again.

Rules:
- nothing of a conversation is left out: a template that knows no calls would show none;
- answers of several tools, and the message of the user after them, are one message: many templates take turns only;
- a name is one of the offered functions, by a schema.
"""

from __future__ import annotations

from typing import Any

from appliance.serve.requests.answer_schema import move_schema
from appliance.serve.requests.json_text import to_json

Fields = dict[str, Any]


def calls_as_text(messages: list[Fields]) -> list[Fields]:
    """Write calls and the answers of tools as messages that every template knows.

    Args:
        messages: as the engine takes them; the arguments of calls are JSON objects as texts.
    """
    written: list[Fields] = []
    before = ""
    for message in messages:
        shown = _as_text(message)
        if written and shown["role"] == written[-1]["role"] == "user" and "tool" in (before, message["role"]):
            written[-1] = {**written[-1], "content": f"{_text(written[-1])}\n\n{_text(shown)}"}
        else:
            written.append(shown)
        before = message["role"]
    return written


def offer_calls(messages: list[Fields], functions: list[Fields], *, is_named: bool) -> tuple[list[Fields], Fields]:
    """Ask for a call of a function.

    Args:
        messages: without calls.
        functions: each with `name`, `description` and `parameters`; one where `is_named`.
        is_named: whether the answer holds the arguments alone.

    Returns:
        The messages with an instruction at the beginning, and the schema of the answer.
    """
    if is_named:
        [function] = functions
        schema = function["parameters"]
        asked = f"Answer with the arguments of the function {function['name']} as one JSON object."
    else:
        schema = _any_call(functions)
        asked = 'Answer with one JSON object: {"name": the function to call, "arguments": its arguments}.'
    text = "\n".join([asked, "Functions:", *(to_json(function).decode() for function in functions)])
    first = messages[0]
    if first["role"] == "system":
        # Many templates take one message of the system, and at the beginning only.
        return [{**first, "content": f"{_text(first)}\n\n{text}"}, *messages[1:]], schema
    return [{"role": "system", "content": text}, *messages], schema


def _as_text(message: Fields) -> Fields:
    calls = message.get("tool_calls", ())
    if calls:
        written = [
            f'{{"name": "{one["function"]["name"]}", "arguments": {one["function"]["arguments"]}}}' for one in calls
        ]
        kept = {name: value for name, value in message.items() if name != "tool_calls"}
        return {**kept, "content": "\n".join(filter(None, (_text(message), *written)))}
    if message["role"] == "tool":
        return {"role": "user", "content": f"Answer of the function: {_text(message)}"}
    return message


def _text(message: Fields) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _any_call(functions: list[Fields]) -> Fields:
    """A schema of an object with the name of one of the functions, and its arguments."""
    calls, places = [], {}
    for at, function in enumerate(functions):
        place = f"call{at}"
        places[place] = move_schema(function["parameters"], f"/$defs/{place}")
        parts = {"name": {"const": function["name"]}, "arguments": {"$ref": f"#/$defs/{place}"}}
        calls.append({"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False})
    return {"anyOf": calls, "$defs": places}
