"""The routes that take a request for a model: the form that its client speaks, and what the model has to do.

`appliance.serve.requests.work` has the model of each route's body, `appliance.serve.dialects` those of other forms than
OpenAI's own. This module is read at the start: it imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass

OPENAI, RESPONSES_FORM, ANTHROPIC = "openai", "responses", "anthropic"
"""Dialects: the form of a request, of its answer and of its errors."""
GENERATE, EMBED, RANK, COUNT = "generate", "embed", "rerank", "count"
"""Tasks: what the model has to do. Every model can count: split a text into its tokens."""

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RERANKINGS, TOKENIZE, DETOKENIZE = "/v1/rerank", "/tokenize", "/detokenize"


@dataclass(frozen=True, slots=True)
class RequestRoute:
    """One route.

    Args:
        task: what the model has to do; a model of another kind refuses the request.
        dialect: the form of the body, of the answer and of errors.
    """

    task: str
    dialect: str = OPENAI


ROUTES: dict[str, RequestRoute] = {
    CHAT: RequestRoute(GENERATE),
    COMPLETIONS: RequestRoute(GENERATE),
    EMBEDDINGS: RequestRoute(EMBED),
    RERANKINGS: RequestRoute(RANK),
    TOKENIZE: RequestRoute(COUNT),
    DETOKENIZE: RequestRoute(COUNT),
}
"""By path."""
_ANTHROPIC_PATHS = ("/v1/messages",)


def dialect_of(path: str) -> str:
    """The form in which a client of a path expects errors, also where there is no such route."""
    if any(path == own or path.startswith(f"{own}/") for own in _ANTHROPIC_PATHS):
        return ANTHROPIC
    return ROUTES[path].dialect if path in ROUTES else OPENAI
