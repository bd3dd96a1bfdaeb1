"""The bodies of `POST /v1/messages` and `/v1/messages/count_tokens`, after Anthropic's reference (version 2023-06-01).

Owns which fields a request has, their types and ranges. `messages_chat` makes a chat of it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from appliance.serve.requests.chat import MAX_MESSAGES, MAX_PARTS, MAX_TOOLS, CallId, FunctionName, Schema
from appliance.serve.requests.fields import MAX_STOPS, MAX_TOKENS, Name, Opaque, RequestModel, Stop, Tokens


class CacheControl(RequestModel):
    """Where Anthropic would keep what was read. Here a prefix is kept without being asked for."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(RequestModel):
    """A text."""

    unsupported: ClassVar = {"citations": ()}

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ThinkingBlock(RequestModel):
    """What the model wrote before its answer. A signature is not checked: there is none here."""

    type: Literal["thinking"]
    thinking: str
    signature: Annotated[str, StringConstraints(max_length=1 << 16)] = ""


class ToolUseBlock(RequestModel):
    """A call that the model made."""

    unsupported: ClassVar = {"caller": ({"type": "direct"},), "toolset_name": ()}

    type: Literal["tool_use"]
    id: CallId
    name: FunctionName
    input: dict[str, Any]
    cache_control: CacheControl | None = None


_OTHER_BLOCKS = (
    *("image", "document", "search_result", "redacted_thinking", "server_tool_use", "web_search_tool_result"),
    *("web_fetch_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result"),
    *("text_editor_code_execution_tool_result", "tool_search_tool_result", "container_upload", "mcp_tool_use"),
    *("mcp_tool_result", "compaction", "tool_reference", "browser_state"),
)


class OtherBlock(RequestModel):
    """Blocks that are no texts and no calls of functions: images, files, and what Anthropic's own tools give."""

    unsupported_types: ClassVar = _OTHER_BLOCKS

    type: Literal["none"]


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) and kind in ("text", "thinking", "tool_use", "tool_result") else "other"


ResultPart = Annotated[
    Annotated[TextBlock, Tag("text")] | Annotated[OtherBlock, Tag("other")],
    Discriminator(lambda value: "text" if _kind(value) == "text" else "other"),
]


class ToolResultBlock(RequestModel):
    """What a tool answered."""

    unsupported: ClassVar = {"toolset_name": ()}

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: str | Annotated[list[ResultPart], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None
    is_error: bool = False
    cache_control: CacheControl | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, Tag("other")],
    Discriminator(_kind),
]
Blocks = Annotated[list[Block], Field(fail_fast=True, max_length=MAX_PARTS)]


class MessageTurn(RequestModel):
    """A message. Turns of one role that follow one another are one turn."""

    role: Literal["user", "assistant", "system"]
    content: str | Blocks


class MessagesTool(RequestModel):
    """A tool that the client itself runs."""

    unsupported_types: ClassVar = (
        *("bash_20241022", "bash_20250124", "memory_20250818", "mcp_toolset"),
        *("text_editor_20241022", "text_editor_20250124", "text_editor_20250429", "text_editor_20250728"),
        *("computer_20241022", "computer_20250124", "computer_20251124", "computer_toolset_20260801"),
        *("code_execution_20250522", "code_execution_20250825", "code_execution_20260120", "code_execution_20260521"),
        *("web_search_20250305", "web_search_20260209", "web_search_20260318", "browser_toolset_20260801"),
        *("web_fetch_20250910", "web_fetch_20260209", "web_fetch_20260309", "web_fetch_20260318"),
        *("tool_search_tool_bm25", "tool_search_tool_bm25_20251119"),
        *("tool_search_tool_regex", "tool_search_tool_regex_20251119"),
    )
    unsupported: ClassVar = {
        "allowed_callers": (["direct"],),
        "defer_loading": (),
        "eager_input_streaming": (True,),
        "input_examples": (),
    }

    type: Literal["custom"] = "custom"
    name: FunctionName
    description: str | None = None
    input_schema: Schema
    strict: bool | None = None
    cache_control: CacheControl | None = None


class MessagesToolChoice(RequestModel):
    """Whether and which tool the model has to call."""

    type: Literal["auto", "any", "none", "tool"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingOptions(RequestModel):
    """Whether the model thinks before it answers, where its template knows that. The budget bounds nothing here."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class SchemaOutput(RequestModel):
    """A JSON value that follows a schema."""

    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(RequestModel):
    """The form of the answer, and how much the model reasons."""

    unsupported: ClassVar = {"task_budget": ()}

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaOutput | None = None


class UserMetadata(RequestModel):
    """A name for the user behind the client. It is not passed on and not logged."""

    user_id: Opaque | None = None


_KEPT_THINKING = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
"""What coding assistants send: nothing is taken away."""


class TokenCountRequest(RequestModel):
    """What has tokens to count."""

    unsupported: ClassVar = {
        "container": (),
        "context_management": ({"edits": []}, _KEPT_THINKING),
        "diagnostics": (),
        "inference_geo": (),
        "mcp_servers": (),
        "service_tier": ("auto", "standard_only"),
        "speed": ("standard",),
        "thread": (),
        "user_profile_id": (),
        "workspace_id": (),
    }

    model: Name
    messages: Annotated[list[MessageTurn], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    system: str | Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None
    tools: Annotated[list[MessagesTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: ThinkingOptions | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesRequest(TokenCountRequest):
    """A conversation to go on with."""

    max_tokens: Tokens
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    stop_sequences: Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)] | None = None
    stream: bool = False
    metadata: UserMetadata | None = None
