"""The description of the gateway's API as an OpenAPI 3.1 document, generated from the models that check requests.

Owns which operations there are and what each may answer. A field of a request is described by the model that refuses
it, so the two cannot differ. `answer_schemas` has the answers; tests compare every reply with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from appliance.serve.observation.answer_schemas import ANSWERS
from appliance.serve.requests.paths import ANTHROPIC, dialect_of
from appliance.serve.requests.request_id import GRAMMAR, REQUEST_ID

JSON, STREAM, PLAIN, HTML = "application/json", "text/event-stream", "text/plain", "text/html"
_REFERENCE = "#/components/schemas/{model}"
_PLACE = "#/components/schemas/"
_ABOUT = {
    400: "The request has a fault; `param` names the field.",
    401: "No valid key.",
    403: "The key may not do this.",
    404: "No such model or route, or none that this model offers.",
    405: "The path takes another method.",
    408: "The body came too slowly.",
    413: "The body is too long.",
    415: "The body is encoded.",
    429: "A queue is full or a quota is used up; `Retry-After` states when to come back.",
    500: "A fault of the gateway or the engine.",
    503: "The model cannot answer now; `Retry-After` states when to come back.",
    504: "The engine fell silent.",
}
_OF_GET = (401, 403, 404)
_OF_POST = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API.

    Args:
        method: `get` or `post`.
        path: with the names of its parameters in braces.
        summary: one sentence.
        answers: by media type the name of the schema; empty for a text.
        has_key: whether it needs a key.
        errors: statuses with an error as their body.
        others: statuses with the same body as 200.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[str, str]
    has_key: bool = True
    errors: tuple[int, ...] = _OF_GET
    others: tuple[int, ...] = ()


def _open(path: str, summary: str, media_type: str, schema: str = "", others: tuple[int, ...] = ()) -> Operation:
    return Operation("get", path, summary, {media_type: schema}, has_key=False, errors=(), others=others)


def _post(path: str, summary: str, schema: str, *, has_stream: bool = False) -> Operation:
    return Operation("post", path, summary, {JSON: schema, **({STREAM: ""} if has_stream else {})}, errors=_OF_POST)


OPERATIONS: tuple[Operation, ...] = (
    _post("/v1/chat/completions", "Goes on with a conversation.", "ChatAnswer", has_stream=True),
    _post("/v1/completions", "Goes on with texts.", "CompletionAnswer", has_stream=True),
    _post("/v1/embeddings", "Makes embeddings of texts.", "EmbeddingAnswer"),
    _post("/v1/responses", "Goes on with a conversation, in the form of Responses.", "ResponseAnswer", has_stream=True),
    _post("/v1/responses/input_tokens", "Counts the tokens of such a conversation.", "CountAnswer"),
    _post("/v1/messages", "Goes on with a conversation, in Anthropic's form.", "MessageAnswer", has_stream=True),
    _post("/v1/messages/count_tokens", "Counts the tokens of such a conversation.", "CountAnswer"),
    _post("/v1/rerank", "Sorts documents by how well each answers a query.", "RerankAnswer"),
    _post("/tokenize", "Splits a text into the tokens of a model.", "TokenizeAnswer"),
    _post("/detokenize", "Writes tokens as the text that they stand for.", "DetokenizeAnswer"),
    Operation("get", "/v1/models", "Lists the models that the key may use.", {JSON: "Models"}),
    Operation("get", "/v1/models/{name}", "Describes one model.", {JSON: "Model"}),
    Operation("get", "/v1/usage", "Shows the usage of the key's own account.", {JSON: "OwnUsage"}),
    Operation("get", "/v1/usage/keys", "Shows the usage of all accounts, to auditors.", {JSON: "AllUsage"}),
    _open("/readyz", "States whether a verified engine serves; 503 where none does.", JSON, "Ready", (503,)),
    _open("/livez", "States that the gateway runs.", PLAIN),
    _open("/health", "States that the gateway runs.", PLAIN),
    _open("/metrics", "The metrics, for Prometheus.", PLAIN),
    _open("/dashboard.json", "A dashboard for Grafana that shows the metrics.", JSON),
    _open("/openapi.json", "This description.", JSON),
    _open("/", "The page for people.", HTML),
    _open("/handbook", "The handbook for people.", HTML),
)


def describe(models: Mapping[str, type[BaseModel]], version: str) -> dict[str, Any]:
    """Write the description.

    Args:
        models: by path, the model that checks the body of each POST.
        version: of the appliance.

    Returns:
        An OpenAPI 3.1 document. It names no model, no key and no site.
    """
    _, generated = models_json_schema([(one, "validation") for one in models.values()], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _write(operation, models.get(operation.path))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Air-gapped appliance",
            "version": version,
            "description": "OpenAI's API for the models of one host, and what stands beside it.",
        },
        "paths": paths,
        "components": {
            "schemas": {**{name: _plain(one) for name, one in generated["$defs"].items()}, **ANSWERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _write(operation: Operation, body: type[BaseModel] | None) -> dict[str, Any]:
    good = {"description": "The answer.", "headers": _headers(), "content": _content(operation.answers)}
    responses: dict[str, Any] = {"200": good, **{str(status): good for status in operation.others}}
    for status in operation.errors:
        content = _content({JSON: "MessageError" if dialect_of(operation.path) == ANTHROPIC else "Error"})
        responses[str(status)] = {"description": _ABOUT[status], "headers": _headers(), "content": content}
    written: dict[str, Any] = {
        "operationId": _identifier(operation),
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation.path), _request_id_parameter()],
        "responses": responses,
    }
    if operation.has_key:
        written["security"] = [{"bearer": []}, {"header": []}]
    if body is not None:
        schema = {"$ref": f"{_PLACE}{body.__name__}"}
        written["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return written


def _identifier(operation: Operation) -> str:
    words = [part for part in operation.path.replace("{", "").replace("}", "").split("/") if part not in ("", "v1")]
    return "_".join((operation.method, *words, *([] if words else ["page"]))).replace(".", "_")


def _content(answers: Mapping[str, str]) -> dict[str, Any]:
    return {media: _media(media, name) for media, name in answers.items()}


def _media(media: str, name: str) -> dict[str, Any]:
    if name:
        return {"schema": {"$ref": f"{_PLACE}{name}"}}
    # A stream has a schema for each event from OpenAPI 3.2 on.
    return {} if media == STREAM else {"schema": {"type": "object" if media == JSON else "string"}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _request_id_parameter() -> dict[str, Any]:
    about = "An identifier of your own for this request; another form than this is not taken."
    schema = {"type": "string", "pattern": f"^{GRAMMAR}$"}
    return {"name": REQUEST_ID, "in": "header", "required": False, "description": about, "schema": schema}


def _headers() -> dict[str, Any]:
    return {REQUEST_ID: {"description": "The identifier of the request.", "schema": {"type": "string"}}}


def _plain(schema: Any) -> Any:
    """A generated schema without the titles that repeat a name, and the null that stands for a field left out."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: one for name, one in schema.items() if name != "title" or not isinstance(one, str)}
    if kept.get("default", "") is None:
        del kept["default"]
    return {name: _plain(one) for name, one in kept.items()}
