"""The body of `POST /v1/chat/completions`, after OpenAI's reference.

Owns which fields a chat has, their types and ranges, and what the engine gets of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from appliance.serve.requests.fields import MAX_LOGPROBS, GenerationRequest, Opaque, RequestModel, Tokens

MAX_MESSAGES = 4096
MAX_PARTS = 256
MAX_CALLS = 128
MAX_TOOLS = 128
MAX_TEMPLATE_FIELDS = 32
MAX_METADATA = 16
MAX_WHOLE = 1 << 53
"""Of a number that every JSON parser reads alike."""

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CallId = Annotated[str, StringConstraints(max_length=128)]
Schema = dict[str, Any]
TemplateValue = (
    bool
    | Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]
    | float
    | Annotated[str, StringConstraints(max_length=1024)]
)


class TextPart(RequestModel):
    """A part of a message: text. Models that read images, sound or files are not served."""

    unsupported_types: ClassVar = (
        "image_url",
        "input_audio",
        "file",
        "refusal",
        "video_url",
        "audio_url",
        "image",
        "input_image",
    )

    type: Literal["text"]
    text: str


Content = str | Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=MAX_PARTS)]


class Instruction(RequestModel):
    """A message of the application itself. `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer"]
    content: Content
    name: CallId | None = None


class UserMessage(RequestModel):
    """A message of the user."""

    role: Literal["user"]
    content: Content
    name: CallId | None = None


class FunctionCall(RequestModel):
    """A call that the model made: `arguments` is a JSON object as a text."""

    name: FunctionName
    arguments: str


class ToolCall(RequestModel):
    """A call of a tool. Custom tools are not supported."""

    unsupported_types: ClassVar = ("custom",)

    id: CallId
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Annotated[int, Field(ge=0, lt=MAX_CALLS)] | None = None


class AssistantMessage(RequestModel):
    """An answer of before. Clients send it back as they got it, with fields that are null or empty."""

    unsupported: ClassVar = {"audio": (), "function_call": (), "refusal": (), "annotations": ()}

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=MAX_CALLS)] | None = None
    name: CallId | None = None


class ToolMessage(RequestModel):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: CallId
    name: CallId | None = None


def _role(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else getattr(value, "role", None)
    return {"developer": "system"}.get(role, role) if isinstance(role, str) else "none"


Message = Annotated[
    Annotated[Instruction, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[ToolMessage, Tag("tool")],
    Discriminator(
        _role,
        custom_error_type="role",
        custom_error_message="a message has the role system, developer, user, assistant or tool",
    ),
]


class Function(RequestModel):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(RequestModel):
    """A tool: functions only."""

    unsupported_types: ClassVar = (
        "custom",
        "web_search",
        "file_search",
        "code_interpreter",
        "mcp",
        "computer_use_preview",
    )

    type: Literal["function"]
    function: Function


class NamedFunction(RequestModel):
    """The function that the model has to call."""

    name: FunctionName


class NamedTool(RequestModel):
    """A choice of one tool."""

    unsupported_types: ClassVar = ("allowed_tools", "custom")

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(RequestModel):
    """The schema that an answer has to follow."""

    name: FunctionName
    schema_: Schema = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextFormat(RequestModel):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(RequestModel):
    """Any JSON object. llama.cpp's own `schema` beside it is taken, too."""

    type: Literal["json_object"]
    schema_: Schema | None = Field(default=None, alias="schema")


class SchemaFormat(RequestModel):
    """A JSON value that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


AnswerFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(GenerationRequest):
    """A conversation to go on with."""

    unsupported: ClassVar = {
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": (),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "prompt_logprobs": (),
        "service_tier": ("auto", "default"),
        "store": (),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: AnswerFormat | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: (
        Annotated[
            dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")], TemplateValue],
            Field(max_length=MAX_TEMPLATE_FIELDS),
        ]
        | None
    ) = None
    metadata: Annotated[dict[str, Opaque], Field(max_length=MAX_METADATA)] | None = None
    safety_identifier: CallId | None = None
    prompt_cache_key: CallId | None = None
    prompt_cache_retention: CallId | None = None

    def has_calls(self) -> bool:
        """Whether it has tools, or calls of before: whether the template knows any decides how they are written."""
        return bool(self.tools) or any(
            isinstance(one, ToolMessage) or (isinstance(one, AssistantMessage) and one.tool_calls)
            for one in self.messages
        )
