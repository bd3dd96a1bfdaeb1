"""The body of `POST /v1/rerank`, after Jina's and Cohere's references, which clients share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from appliance.serve.requests.fields import Name, Opaque, RequestModel

MAX_DOCUMENTS = 1024
"""Of one request. Each is a piece of work."""


class RerankDocument(RequestModel):
    """A document as an object: its text alone counts."""

    text: str


Documents = (
    Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_DOCUMENTS)]
    | Annotated[list[RerankDocument], Field(fail_fast=True, min_length=1, max_length=MAX_DOCUMENTS)]
)


class RerankRequest(RequestModel):
    """Documents to sort by how well each answers a query."""

    unsupported: ClassVar = {"rank_fields": (), "max_chunks_per_doc": (), "max_tokens_per_doc": ()}

    model: Name
    query: str
    documents: Documents
    top_n: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] | None = None
    return_documents: bool = False
    user: Opaque | None = None

    def texts(self) -> list[str]:
        """Each document, in order."""
        return [one if isinstance(one, str) else one.text for one in self.documents]

    def engine_bodies(self) -> list[dict[str, Any]]:
        """What the engine gets for each document."""
        return [{"model": self.model, "query": self.query, "documents": [text]} for text in self.texts()]
