"""The paths of the routes that an engine answers, as OpenAI has them. Read at the start: this imports nothing."""

from __future__ import annotations

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PATHS = (CHAT, COMPLETIONS, EMBEDDINGS)
