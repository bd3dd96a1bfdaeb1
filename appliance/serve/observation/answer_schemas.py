"""JSON Schemas of what the gateway answers, for the description of its API.

Owns what a client may rely on in an answer. An answer may hold more: an engine adds figures of its own.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
DIGEST: Schema = {"type": "string", "description": "SHA-256, or empty where there is none."}


def object_of(required: dict[str, Schema], **optional: Schema) -> Schema:
    """The schema of an object: some fields always, some at times, and whatever else an engine adds."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def list_of(item: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": item}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_LOGPROBS: Schema = {"type": ["object", "null"]}
_FINISH: Schema = {"type": ["string", "null"]}
_MESSAGE = object_of(
    {"role": TEXT},
    content={"type": ["string", "null"]},
    reasoning_content={"type": ["string", "null"]},
    tool_calls=list_of(object_of({"id": TEXT, "type": TEXT, "function": object_of({"name": TEXT, "arguments": TEXT})})),
)
_USAGE = object_of({"prompt_tokens": COUNT, "total_tokens": COUNT}, completion_tokens=COUNT)
_MADE_BY = object_of(
    dict.fromkeys(("release", "model", "template", "engine", "policy"), DIGEST) | {"level": TEXT, "isolation": TEXT}
)
_HEAD: dict[str, Schema] = {"id": TEXT, "object": TEXT, "created": COUNT, "model": TEXT}
_VECTOR: Schema = {"anyOf": [list_of({"type": "number"}), {"type": "string", "description": "base64 of 32-bit floats"}]}
_PIECE: Schema = {"anyOf": [TEXT, list_of(COUNT)]}
_TOKEN: Schema = {"anyOf": [COUNT, object_of({"id": COUNT, "piece": _PIECE})]}
_ERROR = object_of(
    {"message": TEXT, "type": TEXT, "code": {"type": ["string", "integer"]}},
    param={"type": ["string", "null"]},
    request_id=TEXT,
)


def _choices(said: dict[str, Schema]) -> Schema:
    return list_of(object_of({"index": COUNT, **said, "finish_reason": _FINISH}, logprobs=_LOGPROBS))


def _answer(fields: dict[str, Schema]) -> Schema:
    return object_of({**fields, "usage": _ref("Usage")}, appliance=_ref("MadeBy"))


_RANKED = object_of({"index": COUNT, "relevance_score": {"type": "number"}}, document=object_of({"text": TEXT}))
_MODEL = object_of(
    {"id": TEXT, "object": TEXT, "created": COUNT, "owned_by": TEXT, "context": COUNT, "state": TEXT},
    embedding=COUNT,
    task=TEXT,
    reason=TEXT,
    appliance=_ref("MadeBy"),
)
_ITEM = object_of({"type": TEXT})
_IN_OUT: dict[str, Schema] = {"input_tokens": COUNT, "output_tokens": COUNT}
_RESPONSE = object_of(
    {
        "id": TEXT,
        "object": TEXT,
        "created_at": COUNT,
        "status": TEXT,
        "model": TEXT,
        "output": list_of(object_of({"id": TEXT, "type": TEXT})),
        "usage": object_of(_IN_OUT),
    },
    appliance=_ref("MadeBy"),
)
_MESSAGES_ANSWER = object_of(
    {
        "id": TEXT,
        "type": TEXT,
        "role": TEXT,
        "model": TEXT,
        "content": list_of(_ITEM),
        "stop_reason": _FINISH,
        "stop_sequence": _FINISH,
        "usage": object_of(_IN_OUT),
    },
    appliance=_ref("MadeBy"),
)
_MAYBE: Schema = {"type": ["integer", "null"], "minimum": 0}
_COUNTS: dict[str, Schema] = {"tokens_in": COUNT, "tokens_out": COUNT, "requests": COUNT}
_OWN_USAGE = object_of(
    {"account": TEXT, "key": TEXT, "day": TEXT, **_COUNTS, "days": list_of(object_of({"day": TEXT, **_COUNTS}))},
    tokens_per_day=_MAYBE,
    tokens_left=_MAYBE,
    concurrency=_MAYBE,
)
_ALL_USAGE = object_of({"object": TEXT, "data": list_of(object_of({"account": TEXT, "day": TEXT, **_COUNTS}))})
_ENGINE = object_of({"name": TEXT, "state": TEXT, "level": TEXT, "isolation": TEXT}, embedding=COUNT, reason=TEXT)

ANSWERS: dict[str, Schema] = {
    "Usage": _USAGE,
    "MadeBy": _MADE_BY,
    "Error": object_of({"error": _ERROR}),
    "MessageError": object_of({"type": TEXT, "error": _ERROR}, request_id=TEXT),
    "ResponseAnswer": _RESPONSE,
    "MessageAnswer": _MESSAGES_ANSWER,
    "CountAnswer": object_of({"input_tokens": COUNT}),
    "ChatAnswer": _answer({**_HEAD, "choices": _choices({"message": _MESSAGE})}),
    "CompletionAnswer": _answer({**_HEAD, "choices": _choices({"text": TEXT})}),
    "EmbeddingAnswer": _answer({"data": list_of(object_of({"index": COUNT, "embedding": _VECTOR}))}),
    "RerankAnswer": _answer({"object": TEXT, "model": TEXT, "results": list_of(_RANKED)}),
    "TokenizeAnswer": object_of({"tokens": list_of(_TOKEN)}, appliance=_ref("MadeBy")),
    "DetokenizeAnswer": object_of({"content": TEXT}, appliance=_ref("MadeBy")),
    "Model": _MODEL,
    "Models": object_of({"object": TEXT, "data": list_of(_ref("Model"))}),
    "OwnUsage": _OWN_USAGE,
    "AllUsage": _ALL_USAGE,
    "Ready": object_of({"ready": {"type": "boolean"}, "release": TEXT, "manifest": TEXT, "models": list_of(_ENGINE)}),
}
"""By name, as `#/components/schemas/` has them."""
