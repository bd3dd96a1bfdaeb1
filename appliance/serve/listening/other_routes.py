"""Routes of OpenAI, Anthropic, Ollama, Cohere, llama-server and vLLM that this appliance does not offer.

Owns the list of what clients may look for. A client that asks for such a route gets 404 `not_offered` with the routes
that there are. It never gets a 5xx: clients would send the request again and again.
"""

from __future__ import annotations

import re

from appliance.serve.requests.paths import ROUTES
from appliance.serve.requests.refusal import Refusal

_OPENAI = (
    *("assistants", "audio", "batches", "chatkit", "containers", "conversations", "edits", "engines", "evals", "files"),
    *("fine-tunes", "fine_tuning", "images", "moderations", "organization", "projects", "realtime", "responses"),
    *("skills", "threads", "uploads", "vector_stores", "videos", "chat/completions", "completions", "embeddings"),
)
_OTHERS_V1 = (
    *("messages", "complete", "organizations", "rerank", "reranking", "score", "streams", "tokenize", "detokenize"),
    *("classify", "pooling", "infill", "load_lora_adapter", "unload_lora_adapter", "health"),
)
_OLLAMA = (
    *("blobs", "chat", "copy", "create", "delete", "embed", "embeddings", "generate", "ps", "pull", "push", "show"),
    *("tags", "version"),
)
_ENGINES = (
    *("apply-template", "chat/completions", "classify", "completion", "completions", "cors-proxy", "embedding"),
    *("embeddings", "generate", "infill", "invocations", "lora-adapters", "messages", "models", "ping", "pooling"),
    *("props", "rerank", "reranking", "responses", "score", "slots", "tokenizer_info", "tools", "version"),
)
_COHERE = ("chat", "classify", "embed", "rerank", "tokenize")


def _paths(prefix: str, names: tuple[str, ...]) -> str:
    return f"{prefix}/(?:{'|'.join(map(re.escape, names))})"


_KNOWN = re.compile(
    "(?:{})(?:/.*)?".format(
        "|".join(
            (
                _paths("/v1", (*_OPENAI, *_OTHERS_V1)),
                _paths("/v2", _COHERE),
                _paths("/api", _OLLAMA),
                _paths("", _ENGINES),
            )
        )
    ),
    re.DOTALL,
)


def missing_route(path: str) -> Refusal:
    """The refusal of a path that has no route.

    Args:
        path: of the request, untrusted.
    """
    if _KNOWN.fullmatch(path):
        offered = ", ".join(("/v1/models", *ROUTES))
        message = f"This appliance does not offer {path[:200]}. It offers: {offered}; /openapi.json describes them."
        return Refusal(404, "not_offered", message)
    return Refusal(404, "route_not_found", f"There is nothing at {path[:200]}.")
