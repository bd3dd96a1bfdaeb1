"""A request of Responses as a chat: what the engine is asked, and under which names refusals speak of it."""

from __future__ import annotations

from typing import Any

from appliance.serve.dialects.conversation import Conversation, Fields, Renamed, text_parts
from appliance.serve.dialects.responses_request import (
    CallItem,
    CallOutputItem,
    FunctionChoice,
    InputContent,
    MessageItem,
    NamedSchema,
    ReasoningItem,
    ResponsesRequest,
)
from appliance.serve.requests.chat import ObjectFormat

RENAMED: Renamed = (
    (r"response_format\.json_schema\.schema", "text.format.schema"),
    (r"response_format\.schema", "text.format.schema"),
    (r"response_format", "text.format"),
    (r"tool_choice\.function", "tool_choice"),
    (r"(tools\[\d+\])\.function", r"\1"),
    (r"max_completion_tokens", "max_output_tokens"),
    (r"reasoning_effort", "reasoning.effort"),
    (r"logprobs", "include"),
    (r"messages(?!\[)", "input"),
)
"""Fields of a chat, and where they come from."""


def make_conversation(request: ResponsesRequest) -> Conversation:
    """The messages of a request.

    Args:
        request: checked.
    """
    made = Conversation()
    if request.instructions is not None:
        made.add_instruction(request.instructions, "instructions")
    if isinstance(request.input, str):
        made.add({"role": "user", "content": request.input}, "input")
        return made
    for at, item in enumerate(request.input):
        place = f"input[{at}]"
        if isinstance(item, MessageItem):
            _add_message(made, item, place)
        elif isinstance(item, CallItem):
            function = {"name": item.name, "arguments": item.arguments}
            made.add_answer(place, call={"id": item.call_id, "type": "function", "function": function})
        elif isinstance(item, CallOutputItem):
            output = text_parts(_texts(item.output))
            made.add({"role": "tool", "tool_call_id": item.call_id, "content": output}, place)
        elif isinstance(item, ReasoningItem):
            made.add_answer(place, reasoning="".join(part.text for part in item.content or item.summary or ()))
    return made


def chat_fields(request: ResponsesRequest, messages: list[Fields]) -> Fields:
    """The body of a chat that asks the same.

    Args:
        request: checked.
        messages: of `make_conversation`.
    """
    chat: Fields = {
        "model": request.model,
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "parallel_tool_calls": request.parallel_tool_calls,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "response_format": _answer_format(request),
        "tools": [_tool(one.model_dump(exclude={"type"})) for one in request.tools or ()],
        "tool_choice": request.tool_choice,
        "stream": request.stream,
        "stream_options": {"include_usage": True} if request.stream else None,
    }
    if isinstance(request.tool_choice, FunctionChoice):
        chat["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice.name}}
    if request.top_logprobs is not None or "message.output_text.logprobs" in (request.include or ()):
        chat |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return chat


def echo_fields(request: ResponsesRequest) -> Fields:
    """The fields of a request that its response repeats.

    Args:
        request: checked; what is made of it later does not change them.
    """
    sent = request.model_dump(by_alias=True, exclude_none=True)
    names = ("instructions", "max_output_tokens", "temperature", "top_p", "top_logprobs", "metadata", "user")
    more = ("safety_identifier", "prompt_cache_key")
    return {
        "model": request.model,
        "store": False,
        "previous_response_id": None,
        "max_tool_calls": None,
        "truncation": "disabled",
        "parallel_tool_calls": sent.get("parallel_tool_calls", True),
        "tool_choice": sent.get("tool_choice", "auto"),
        "tools": sent.get("tools", []),
        "text": sent.get("text") or {"format": {"type": "text"}},
        "reasoning": {"effort": None, "summary": None, **sent.get("reasoning", {})},
        **{name: sent.get(name) for name in names},
        **{name: sent[name] for name in more if name in sent},
    }


def _add_message(made: Conversation, item: MessageItem, place: str) -> None:
    texts = _texts(item.content)
    if item.role == "assistant":
        made.add_answer(place, text="".join(texts))
    elif item.role == "user":
        made.add({"role": "user", "content": text_parts(texts)}, place)
    else:
        made.add_instruction("\n\n".join(texts), place)


def _texts(content: InputContent) -> list[str]:
    return [content] if isinstance(content, str) else [part.text for part in content]


def _tool(function: dict[str, Any]) -> Fields:
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _answer_format(request: ResponsesRequest) -> Fields | None:
    form = request.text.format if request.text else None
    if isinstance(form, NamedSchema):
        return {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.schema_}}
    if isinstance(form, ObjectFormat):
        return {"type": "json_object"} if form.schema_ is None else {"type": "json_object", "schema": form.schema_}
    return None
