"""What all requests share: models that know every field, and fields that all routes take.

Rules:
- a field that no model names is refused: nothing reaches an engine that was not asked for (threats T37, T79);
- a field of OpenAI that is not supported is refused as that, unless it holds what changes nothing;
- types are strict: a text is no number, and a number is finite and in its range;
- a field that holds null is one that was not sent;
- a list is left at its first fault: a body has room for a million of them, and each would be described.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from appliance.serve.requests.refusal import MAX_NAME_CHARS, Refusal, refused_field

MAX_TOKENS = (1 << 31) - 1
MAX_STOPS = 16
MAX_BIASES = 1024
MAX_LOGPROBS = 20
"""Of each token, as OpenAI has it. An engine by itself gives the whole vocabulary."""
MAX_ANSWERS = 8

UNSUPPORTED = "unsupported"
_PLAIN = (UNSUPPORTED, "extra_forbidden", "too_long")
"""Faults that are named before others."""
_MESSAGES = {"union_tag_invalid": "its type is not one of those that are known"}
_UNSET: tuple[object, ...] = (None, False, "", [], {})

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stops = Stop | Annotated[list[Stop], Field(fail_fast=True, max_length=MAX_STOPS)]
Biases = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
]
Opaque = Annotated[str, StringConstraints(max_length=512)]


class RequestModel(BaseModel):
    """A part of a request.

    `unsupported` has fields that OpenAI knows and this gateway does not, each with values that change nothing.
    `unsupported_types` has values of the field `type` that OpenAI knows and this gateway does not.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    unsupported: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    unsupported_types: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {name: one for name, one in value.items() if one is not None}
        if kept.get("type") in cls.unsupported_types:
            raise PydanticCustomError(UNSUPPORTED, "not supported", {"field": "type"})
        for name, harmless in cls.unsupported.items():
            if name not in kept:
                continue
            if not any(_is_same(kept[name], one) for one in (*_UNSET, *harmless)):
                raise PydanticCustomError(UNSUPPORTED, "not supported", {"field": name})
            del kept[name]
        return kept


class GenerationRequest(RequestModel):
    """Fields of both routes that generate text: how tokens are chosen, and when to stop.

    `top_k` to `repeat_last_n` are llama.cpp's own samplers. `user` changes no answer here and is not passed on.
    """

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: Stops | None = None
    logit_bias: Biases | None = None
    max_tokens: Tokens | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Opaque | None = None

    def sampling(self) -> dict[str, Any]:
        """The fields that the engine gets as they are, without those that were not sent."""
        names = (
            *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
            *("frequency_penalty", "presence_penalty", "logit_bias", "max_tokens"),
        )
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.stop is not None:
            chosen["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.seed is not None:
            # An engine's seed has 32 bits, and all ones mean a random one.
            chosen["seed"] = self.seed % ((1 << 32) - 1)
        if self.stream:
            chosen["stream"] = True
            options = self.stream_options
            chosen["stream_options"] = {"include_usage": bool(options and options.include_usage)}
        return chosen


class StreamOptions(RequestModel):
    """Options of a stream. `include_obfuscation` is for networks that somebody watches, and changes no answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


GenerationRequest.model_rebuild()


def first_refusal(error: ValidationError, body: object) -> Refusal:
    """Make the refusal for the fault that lies deepest in a body. It names the field and no value.

    Args:
        error: what pydantic found.
        body: what it was given: its own paths also name the types that it tried.
    """
    faults = error.errors(include_url=False, include_input=False)
    paths = [_path(fault["loc"], body, is_absent=fault["type"] == "missing") for fault in faults]
    # Of the types that a field may have, the one whose fault lies deepest is the one that was meant.
    ranks = [
        (fault["type"] in _PLAIN, path.count(".") + path.count("[")) for fault, path in zip(faults, paths, strict=True)
    ]
    at = ranks.index(max(ranks))
    fault, field = faults[at], paths[at]
    kind = fault["type"]
    if kind == UNSUPPORTED:
        field = ".".join(filter(None, (field, str(fault["ctx"]["field"]))))
    # Names in a map are the user's, and as long as a body.
    field = field[:MAX_NAME_CHARS]
    if kind == UNSUPPORTED:
        return refused_field("unsupported", field, f"The field {field!r} is not supported here.")
    if kind == "extra_forbidden":
        return refused_field("unknown_field", field, f"The field {field!r} is not known here.")
    if kind == "missing":
        return refused_field("field_missing", field, f"The field {field!r} is missing.")
    return refused_field(
        "invalid_field", field, f"The field {field!r} is not valid: {_MESSAGES.get(kind, fault['msg'])}."
    )


def _path(location: tuple[int | str, ...], body: object, *, is_absent: bool) -> str:
    """A field's path as people write it: `messages[0].content`. What is no part of the body is left out."""
    path = ""
    for number, part in enumerate(location):
        if isinstance(part, int) and isinstance(body, list) and part < len(body):
            path, body = f"{path}[{part}]", body[part]
        elif isinstance(part, str) and isinstance(body, dict):
            is_last = number == len(location) - 1
            if part in body or (is_absent and is_last):
                path, body = f"{path}.{part}" if path else part, body.get(part)
    return path


def _is_same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other
