"""The body of `POST /v1/responses`, after OpenAI's reference, without what needs a memory between two requests.

Owns which fields a request has, their types and ranges. `responses_chat` makes a chat of it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from appliance.serve.requests.chat import (
    MAX_MESSAGES,
    MAX_METADATA,
    MAX_PARTS,
    MAX_TOOLS,
    CallId,
    FunctionName,
    ObjectFormat,
    Schema,
    TextFormat,
)
from appliance.serve.requests.fields import MAX_LOGPROBS, Name, Opaque, RequestModel, Tokens

Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[str, StringConstraints(max_length=256)]
MAX_INCLUDES = 8


class InputText(RequestModel):
    """A part of a message: text. Models that read images, sound or files are not served."""

    unsupported_types: ClassVar = ("input_image", "input_file", "input_audio", "refusal", "computer_screenshot")
    unsupported: ClassVar = {"annotations": (), "prompt_cache_breakpoint": ()}

    type: Literal["input_text", "output_text", "text"]
    text: str
    logprobs: list[Any] | None = None


InputContent = str | Annotated[list[InputText], Field(fail_fast=True, min_length=1, max_length=MAX_PARTS)]


class MessageItem(RequestModel):
    """A message, of the application, the user or the model."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: InputContent
    id: ItemId | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(RequestModel):
    """A call that the model made: `arguments` is a JSON object as a text."""

    unsupported: ClassVar = {"caller": ({"type": "direct"},), "namespace": (), "async": ()}

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: str
    id: ItemId | None = None
    status: Status | None = None


class CallOutputItem(RequestModel):
    """What a function answered."""

    unsupported: ClassVar = {"caller": ({"type": "direct"},), "namespace": ()}

    type: Literal["function_call_output"]
    call_id: CallId
    output: InputContent
    name: FunctionName | None = None
    id: ItemId | None = None
    status: Status | None = None


class ReasoningText(RequestModel):
    """A piece of reasoning."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


ReasoningTexts = Annotated[list[ReasoningText], Field(fail_fast=True, max_length=MAX_PARTS)]


class ReasoningItem(RequestModel):
    """What the model wrote before its answer. Nothing is encrypted here, so nothing encrypted is read."""

    unsupported: ClassVar = {"encrypted_content": ()}

    type: Literal["reasoning"]
    summary: ReasoningTexts | None = None
    content: ReasoningTexts | None = None
    id: ItemId | None = None
    status: Status | None = None


class OtherItem(RequestModel):
    """Items of tools that are no functions, and references to what a server would have stored."""

    unsupported_types: ClassVar = (
        *("item_reference", "file_search_call", "computer_call", "computer_call_output", "web_search_call"),
        *("code_interpreter_call", "image_generation_call", "local_shell_call", "local_shell_call_output"),
        *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output", "mcp_list_tools"),
        *("mcp_approval_request", "mcp_approval_response", "mcp_call", "custom_tool_call", "custom_tool_call_output"),
        *("tool_search_call", "tool_search_output", "compaction", "program", "program_output"),
    )

    type: Literal["none"]


_ITEMS = {"message": "message", "function_call": "call", "function_call_output": "output", "reasoning": "reasoning"}


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind is None:
        return "message"
    return _ITEMS.get(kind, "other") if isinstance(kind, str) else "other"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("call")]
    | Annotated[CallOutputItem, Tag("output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_kind),
]


class ResponsesTool(RequestModel):
    """A tool: functions only."""

    unsupported_types: ClassVar = (
        *("custom", "web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
        *("file_search", "computer", "computer_use", "computer_use_preview", "mcp", "code_interpreter"),
        *("image_generation", "local_shell", "shell", "apply_patch", "namespace", "tool_search"),
        "programmatic_tool_calling",
    )
    unsupported: ClassVar = {
        "allowed_callers": (["direct"],),
        "async": (),
        "defer_loading": (),
        "output_schema": (),
    }

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class FunctionChoice(RequestModel):
    """The function that the model has to call."""

    unsupported_types: ClassVar = (
        *("allowed_tools", "custom", "mcp", "file_search", "web_search_preview", "computer_use_preview", "shell"),
        *("apply_patch", "code_interpreter", "image_generation", "programmatic_tool_calling"),
    )

    type: Literal["function"]
    name: FunctionName


class NamedSchema(RequestModel):
    """A JSON value that follows a schema."""

    type: Literal["json_schema"]
    name: FunctionName
    schema_: Schema = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(RequestModel):
    """The form of the answer's text."""

    unsupported: ClassVar = {"verbosity": ("medium",)}

    format: Annotated[TextFormat | ObjectFormat | NamedSchema, Field(discriminator="type")] | None = None


class ReasoningOptions(RequestModel):
    """How much the model reasons. A summary is not made: the reasoning itself is in the answer."""

    unsupported: ClassVar = {"context": ("auto",), "mode": ("standard",)}

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ObfuscationOptions(RequestModel):
    """Options of a stream. `include_obfuscation` is for networks that somebody watches, and changes no answer."""

    include_obfuscation: bool = False


class ResponsesRequest(RequestModel):
    """Items to go on with. `store` is taken, and nothing is stored."""

    unsupported: ClassVar = {
        "access_programs": (),
        "background": (),
        "context_management": (),
        "conversation": (),
        "image": (),
        "max_tool_calls": (),
        "moderation": (),
        "previous_response_id": (),
        "prompt": (),
        "prompt_cache_options": (),
        "service_tier": ("auto", "default"),
        "truncation": ("disabled",),
    }

    model: Name
    input: str | Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    include: (
        Annotated[
            list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]], Field(max_length=MAX_INCLUDES)
        ]
        | None
    ) = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[list[ResponsesTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    stream: bool = False
    stream_options: ObfuscationOptions | None = None
    metadata: Annotated[dict[str, Opaque], Field(max_length=MAX_METADATA)] | None = None
    user: Opaque | None = None
    safety_identifier: CallId | None = None
    prompt_cache_key: CallId | None = None
    prompt_cache_retention: CallId | None = None
