"""Replies that the gateway itself makes: refusals in the form that OpenAI clients understand.

Owns the texts, the status codes and the headers of every reply. A refusal states what to do next, and nothing about
keys, other users or models that the user may not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from appliance.host.engine.state import STARTING, STOPPED, EngineState
from appliance.serve.requests.json_text import to_json
from appliance.serve.requests.paths import EMBED, OPENAI, RANK
from appliance.serve.requests.refusal import Refusal

HARDENING = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Headers of every reply."""


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A reply that is one JSON value."""
    return Response(to_json(value), status, dict(headers or {}), media_type="application/json")


def refusal_response(refusal: Refusal, dialect: str = OPENAI) -> Response:
    """The reply to a request that is refused, in the form that its client understands."""
    return json_reply(refusal.body(dialect), refusal.status, refusal.headers)


def unauthorized() -> Refusal:
    """For a missing, wrong, expired or withdrawn key: one answer, so that nobody learns which."""
    return Refusal(
        401,
        "invalid_api_key",
        "A valid key is needed: send it as 'Authorization: Bearer KEY'.",
        headers={"www-authenticate": "Bearer"},
    )


def forbidden(model: str) -> Refusal:
    """For a model that this key may not use."""
    return Refusal(403, "model_forbidden", f"This key may not use the model {model!r}.", param="model")


def unknown_model(model: str, known: list[str]) -> Refusal:
    """For a model that is not served: never another one in its place."""
    names = ", ".join(known)
    if "@" in model:
        words = "names an adapter of a model, which is not offered here"
        message = f"{model[:80]!r} {words}. Models that this key may use: {names}."
        return Refusal(404, "not_offered", message, param="model")
    message = f"The model {model[:80]!r} is not served here. Models that this key may use: {names}."
    return Refusal(404, "model_not_found", message, param="model")


def wrong_task(model: str, does: str, asked: str) -> Refusal:
    """For a request that this kind of model cannot answer.

    Args:
        model: its name.
        does: the model's task.
        asked: the task of the request's route.
    """
    if does == RANK:
        message = f"The model {model!r} sorts documents, and does nothing else: use /v1/rerank, or another model."
        return Refusal(400, "model_only_ranks", message, param="model")
    if asked == RANK:
        message = f"The model {model!r} does not sort documents, so /v1/rerank is not offered for it."
        return Refusal(404, "not_offered", message, param="model")
    if does == EMBED:
        message = f"The model {model!r} makes embeddings and cannot chat: use /v1/embeddings, or another model."
        return Refusal(400, "model_only_embeds", message, param="model")
    message = f"The model {model!r} chats and makes no embeddings: use /v1/chat/completions, or another model."
    return Refusal(400, "model_cannot_embed", message, param="model")


def too_busy(retry_after_s: int, *, is_own: bool = False) -> Refusal:
    """For a full queue.

    Args:
        retry_after_s: whole seconds after which another try makes sense.
        is_own: whether the requests of the same key fill its part of the queue.
    """
    reason = "Too many requests of this key wait" if is_own else "All slots of this model are taken"
    message = f"{reason}. Try again in {retry_after_s} s."
    return Refusal(429, "rate_limit_exceeded", message, headers={"retry-after": str(retry_after_s)})


def not_serving(model: str, state: EngineState) -> Refusal:
    """For an engine that does not serve."""
    if state.status == STOPPED:
        return Refusal(503, "model_stopped", f"The model {model!r} was stopped: {state.reason}. Ask your operator.")
    code, word = ("model_starting", "started") if state.status == STARTING else ("model_restarting", "restarted")
    return Refusal(503, code, f"The model {model!r} is being {word}.", headers={"retry-after": "5"})


def loading(model: str, retry_after_s: int) -> Refusal:
    """For a model that is being loaded for longer than a request may wait."""
    message = f"The model {model!r} is being loaded. Try again in {retry_after_s} s."
    return Refusal(503, "loading", message, headers={"retry-after": str(retry_after_s)})


def no_room(model: str, retry_after_s: int) -> Refusal:
    """For a model that cannot be loaded, since others that are in use take the memory."""
    message = f"The model {model!r} is not loaded, and other models in use take the memory. Try again later."
    return Refusal(503, "no_room", message, headers={"retry-after": str(retry_after_s)})


def engine_lost(model: str) -> Refusal:
    """For an engine that ended while it was asked, or has just been started again."""
    return Refusal(503, "engine_lost", f"The engine of {model!r} ended or fell silent.", headers={"retry-after": "5"})


def engine_silent(model: str) -> Refusal:
    """For work that was ended since the engine produced nothing for it. The same request would do that again."""
    message = f"The engine of {model!r} produced nothing for this request. Make it smaller: its text, or its schemas."
    return Refusal(504, "engine_silent", message)


def switching() -> Refusal:
    """For a request that is not answered before this gateway makes room for the next one."""
    message = "The appliance switches to another release or configuration. Send the request again."
    return Refusal(503, "switching", message, headers={"retry-after": "2"})
