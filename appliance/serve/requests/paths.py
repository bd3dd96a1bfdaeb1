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
RESPONSES, INPUT_TOKENS = "/v1/responses", "/v1/responses/input_tokens"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
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
    RESPONSES: RequestRoute(GENERATE, RESPONSES_FORM),
    INPUT_TOKENS: RequestRoute(GENERATE, RESPONSES_FORM),
    MESSAGES: RequestRoute(GENERATE, ANTHROPIC),
    COUNT_TOKENS: RequestRoute(GENERATE, ANTHROPIC),
    TOKENIZE: RequestRoute(COUNT),
    DETOKENIZE: RequestRoute(COUNT),
}
"""By path."""
CHAT_TOKENS = "/v1/chat/completions/input_tokens"
"""The engine's route that counts the tokens of a chat. No client's."""


def dialect_of(path: str) -> str:
    """The form in which a client of a path expects errors, also where there is no such route."""
    if path == MESSAGES or path.startswith(f"{MESSAGES}/"):
        return ANTHROPIC
    return ROUTES[path].dialect if path in ROUTES else OPENAI
