"""A request of Messages as a chat: what the engine is asked, and under which names refusals speak of it."""

from __future__ import annotations

from appliance.serve.dialects.conversation import Conversation, Fields, Renamed
from appliance.serve.dialects.messages_request import (
    Block,
    MessagesRequest,
    MessagesToolChoice,
    MessageTurn,
    TextBlock,
    ThinkingBlock,
    TokenCountRequest,
    ToolResultBlock,
    ToolUseBlock,
)
from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.refusal import refused_field

RENAMED: Renamed = (
    (r"response_format\.json_schema\.schema", "output_config.format.schema"),
    (r"response_format", "output_config.format"),
    (r"(tools\[\d+\])\.function\.parameters", r"\1.input_schema"),
    (r"(tools\[\d+\])\.function", r"\1"),
    (r"tool_choice\.function", "tool_choice"),
    (r"reasoning_effort", "output_config.effort"),
    (r"chat_template_kwargs", "thinking"),
    (r"stop(?![a-z_])", "stop_sequences"),
)
"""Fields of a chat, and where they come from."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = {"max": "xhigh"}


def make_conversation(request: TokenCountRequest) -> Conversation:
    """The messages of a request.

    Args:
        request: checked.

    Raises:
        Refusal: a block stands where its role has none.
    """
    made = Conversation()
    if request.system:
        parts = [request.system] if isinstance(request.system, str) else [part.text for part in request.system]
        made.add_instruction("\n\n".join(parts), "system")
    for at, turn in enumerate(request.messages):
        _add_turn(made, turn, f"messages[{at}]")
    return made


def chat_fields(request: TokenCountRequest, messages: list[Fields]) -> Fields:
    """The body of a chat that asks the same.

    Args:
        request: checked.
        messages: of `make_conversation`.

    Raises:
        Refusal: a choice of a tool names none, or a kind of choice that takes no name has one.
    """
    config = request.output_config
    chat: Fields = {"model": request.model, "messages": messages, **_tools(request)}
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = _EFFORTS.get(config.effort, config.effort)
    if config is not None and config.format is not None:
        schema = {"name": "answer", "schema": config.format.schema_}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.thinking is not None:
        chat["chat_template_kwargs"] = {"enable_thinking": request.thinking.type != "disabled"}
    if isinstance(request, MessagesRequest):
        chat |= {
            "max_completion_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": request.stop_sequences,
            "stream": request.stream,
            "stream_options": {"include_usage": True} if request.stream else None,
        }
    return chat


def _tools(request: TokenCountRequest) -> Fields:
    choice = request.tool_choice
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
        }
        for tool in request.tools or ()
    ]
    parallel = None
    if choice is not None and choice.disable_parallel_tool_use is not None:
        parallel = not choice.disable_parallel_tool_use
    return {"tools": tools, "tool_choice": _choice(choice), "parallel_tool_calls": parallel}


def _choice(choice: MessagesToolChoice | None) -> str | Fields | None:
    if choice is None:
        return None
    if (choice.name is not None) != (choice.type == "tool"):
        message = "The field 'tool_choice.name' belongs to the choice of the type 'tool', and to no other."
        raise refused_field("invalid_field", "tool_choice.name", message)
    return _CHOICES.get(choice.type) or {"type": "function", "function": {"name": choice.name}}


def _add_turn(made: Conversation, turn: MessageTurn, place: str) -> None:
    if isinstance(turn.content, str):
        _add_text(made, turn.role, turn.content, place)
        return
    if not turn.content and turn.role != "assistant":
        raise refused_field("invalid_field", f"{place}.content", "A message of this role is not empty.")
    for at, block in enumerate(turn.content):
        _add_block(made, turn.role, block, place, f"{place}.content[{at}]")


def _add_block(made: Conversation, role: str, block: Block, place: str, path: str) -> None:
    if isinstance(block, TextBlock):
        _add_text(made, role, block.text, place)
    elif isinstance(block, ToolResultBlock) and role == "user":
        made.add({"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}, place)
    elif isinstance(block, ThinkingBlock) and role == "assistant":
        made.add_answer(place, reasoning=block.thinking)
    elif isinstance(block, ToolUseBlock) and role == "assistant":
        function = {"name": block.name, "arguments": to_json(block.input).decode()}
        made.add_answer(place, call={"id": block.id, "type": "function", "function": function})
    else:
        message = f"A message of the role {role!r} has no block of this type."
        raise refused_field("invalid_field", path, message)


def _add_text(made: Conversation, role: str, text: str, place: str) -> None:
    if role == "assistant":
        made.add_answer(place, text=text)
    elif role == "system":
        made.add_instruction(text, place)
    else:
        made.add_user(text, place)


def _result(block: ToolResultBlock) -> str:
    """The text of a result. A chat has no field for a failure, so the text states it."""
    content = block.content or ""
    text = content if isinstance(content, str) else "\n".join(part.text for part in content if part.type == "text")
    return f"Error: {text}" if block.is_error else text
