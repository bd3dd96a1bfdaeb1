"""What an engine gets of a chat: written anew, field by field.

Owns the choice of tools, which llama.cpp knows as `none`, `auto` and `required` only, and only where the model's
template has tools. A function that has to be called is asked for by a schema where the template has none; what the
model then writes is made a call again by `forced_call`.

Rules:
- nothing of a request is left out in silence: it is honoured or refused;
- what the engine parses itself (arguments of calls, schemas) was parsed here, bounded, and written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.serve.requests.answer_schema import check_schemas
from appliance.serve.requests.call_text import calls_as_text, offer_calls
from appliance.serve.requests.chat import (
    AssistantMessage,
    ChatRequest,
    Content,
    Function,
    Message,
    NamedTool,
    ObjectFormat,
    SchemaFormat,
    ToolMessage,
)
from appliance.serve.requests.json_text import parse_json, to_json
from appliance.serve.requests.refusal import Refusal, refused_field

ANY_OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
_OWN_FIELDS = ("messages", "tools", "bos_token", "eos_token", "add_generation_prompt")
"""Of a template: the engine gives them to it, and what a user sends for them would replace them."""


@dataclass(frozen=True, slots=True)
class EngineChat:
    """A chat for the engine.

    Args:
        body: for the engine's route of the same path.
        forced: the function whose arguments the answer holds; empty for an object with `name` and `arguments`; None
            where the answer is one of the engine's own.
    """

    body: dict[str, Any]
    forced: str | None = None


def engine_chat(request: ChatRequest, *, has_tools: bool) -> EngineChat:
    """Write a chat for the engine.

    Args:
        request: checked.
        has_tools: whether the model's template knows tools.

    Raises:
        Refusal: parts of the request contradict each other, or the model cannot honour one.
    """
    check_schemas(_schemas(request))
    _check_template_fields(request)
    messages = [_message(message, f"messages[{at}]") for at, message in enumerate(request.messages)]
    body = {
        "model": request.model,
        "messages": messages if has_tools else calls_as_text(messages),
        **request.sampling(),
        **_answer_format(request),
        **_logprobs(request),
    }
    if request.max_completion_tokens is not None:
        body["max_tokens"] = request.max_completion_tokens
    for name in ("reasoning_effort", "chat_template_kwargs"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    return _choose_tools(request, body, has_tools=has_tools)


def _check_template_fields(request: ChatRequest) -> None:
    for name in request.chat_template_kwargs or ():
        if name in _OWN_FIELDS:
            field = f"chat_template_kwargs.{name}"
            raise refused_field("unsupported", field, f"The field {field!r} is the engine's own.")


def _schemas(request: ChatRequest) -> list[tuple[str, dict[str, Any]]]:
    found = [
        (f"tools[{at}].function.parameters", tool.function.parameters)
        for at, tool in enumerate(request.tools or ())
        if tool.function.parameters is not None
    ]
    answer = request.response_format
    if isinstance(answer, SchemaFormat):
        found.append(("response_format.json_schema.schema", answer.json_schema.schema_))
    if isinstance(answer, ObjectFormat) and answer.schema_ is not None:
        found.append(("response_format.schema", answer.schema_))
    return found


def _answer_format(request: ChatRequest) -> dict[str, Any]:
    answer = request.response_format
    if isinstance(answer, SchemaFormat):
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": answer.json_schema.schema_}}}
    if isinstance(answer, ObjectFormat):
        schema = {} if answer.schema_ is None else {"schema": answer.schema_}
        return {"response_format": {"type": "json_object", **schema}}
    return {}


def _logprobs(request: ChatRequest) -> dict[str, Any]:
    if request.top_logprobs is not None and not request.logprobs:
        raise refused_field("invalid_field", "top_logprobs", "The field 'top_logprobs' needs 'logprobs': true.")
    if not request.logprobs:
        return {}
    if request.tools and request.stream:
        raise refused_field("unsupported", "logprobs", "'logprobs' is not supported with tools in a stream.")
    # With none of the others wanted, an engine leaves out the chosen ones, too.
    return {"logprobs": True, "top_logprobs": request.top_logprobs or 1}


def _message(message: Message, field: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    written: dict[str, Any] = {"role": role}
    if message.content is not None:
        written["content"] = _content(message.content)
    if message.name is not None:
        written["name"] = message.name
    if isinstance(message, ToolMessage):
        written["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        if message.content is None and not message.tool_calls:
            raise refused_field("field_missing", f"{field}.content", "An answer has 'content' or 'tool_calls'.")
        if message.reasoning_content is not None:
            written["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            written["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(
                            call.function.arguments, f"{field}.tool_calls[{at}].function.arguments"
                        ),
                    },
                }
                for at, call in enumerate(message.tool_calls)
            ]
    return written


def _content(content: Content) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.text} for part in content]


def _arguments(text: str, field: str) -> str:
    value = parse_json(text.strip() or "{}", field)
    if not isinstance(value, dict):
        raise refused_field("invalid_field", field, f"The field {field!r} must hold a JSON object as a text.")
    return to_json(value).decode()


def _choose_tools(request: ChatRequest, body: dict[str, Any], *, has_tools: bool) -> EngineChat:
    tools = {tool.function.name: tool.function for tool in request.tools or ()}
    if len(tools) != len(request.tools or ()):
        raise refused_field("invalid_field", "tools", "Two tools have the same name.")
    choice = request.tool_choice if request.tool_choice is not None else "auto"
    named = choice.function.name if isinstance(choice, NamedTool) else None
    if not tools:
        if choice not in ("auto", "none"):
            raise refused_field("invalid_field", "tool_choice", "There are no tools to choose from.")
        return EngineChat(body)
    if named is not None and named not in tools:
        raise refused_field("invalid_field", "tool_choice.function.name", "There is no tool of this name.")
    if choice == "none":
        # A template that has tools shows them although none may be called.
        return EngineChat(_with_tools(request, body, list(tools.values()), "none") if has_tools else body)
    if "response_format" in body:
        raise refused_field("unsupported", "response_format", "An answer cannot call a tool and follow a form, too.")
    if has_tools:
        chosen = [tools[named]] if named else list(tools.values())
        return EngineChat(_with_tools(request, body, chosen, "auto" if choice == "auto" else "required"))
    if choice == "auto":
        message = "This model's template knows no tools: it can only be made to call one, with 'tool_choice'."
        raise Refusal(400, "unsupported", message, param="tools")
    return _forced(body, list(tools.values()), named)


def _with_tools(request: ChatRequest, body: dict[str, Any], tools: list[Function], choice: str) -> dict[str, Any]:
    written = {**body, "tools": [_tool(function) for function in tools], "tool_choice": choice}
    if request.parallel_tool_calls is not None:
        written["parallel_tool_calls"] = request.parallel_tool_calls
    return written


def _tool(function: Function) -> dict[str, Any]:
    described = {"name": function.name, "description": function.description or ""}
    return {"type": "function", "function": {**described, "parameters": function.parameters or ANY_OBJECT}}


def _forced(body: dict[str, Any], tools: list[Function], named: str | None) -> EngineChat:
    """Ask for a call where the template knows none: the functions as an instruction, the call as a schema."""
    offered = [_tool(function)["function"] for function in tools if named in (None, function.name)]
    messages, schema = offer_calls(body["messages"], offered, is_named=named is not None)
    answer = {"type": "json_schema", "json_schema": {"schema": schema}}
    return EngineChat({**body, "messages": messages, "response_format": answer}, named or "")
