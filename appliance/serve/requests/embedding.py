"""The body of `POST /v1/embeddings`, after OpenAI's reference."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from appliance.serve.requests.fields import Name, Opaque, RequestModel, TokenId

MAX_TEXTS = 2048
"""Of one request, as OpenAI has it."""
TokenText = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Texts = Annotated[list[str], Field(fail_fast=True)] | Annotated[list[TokenText], Field(fail_fast=True)]


class EmbeddingRequest(RequestModel):
    """Texts to make embeddings of. Each is a text, or its tokens as numbers."""

    unsupported: ClassVar = {"dimensions": ()}

    model: Name
    input: str | TokenText | Annotated[Texts, Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Opaque | None = None

    def texts(self) -> list[str | list[int]]:
        """Each text, in order."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return list(self.input)
