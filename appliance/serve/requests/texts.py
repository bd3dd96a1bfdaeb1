"""The bodies of requests for which a model writes no text: embeddings, ranking, and tokens.

`POST /v1/embeddings` is after OpenAI's reference, `/v1/rerank` after Jina's and Cohere's, which clients share, and
`/tokenize` and `/detokenize` after llama-server's own routes of these names.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from appliance.serve.requests.fields import Name, Opaque, RequestModel, TokenId

MAX_TEXTS = 2048
"""Of one request, as OpenAI has it."""
TokenText = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Texts = Annotated[list[str], Field(fail_fast=True)] | Annotated[list[TokenText], Field(fail_fast=True)]
MAX_DOCUMENTS = 1024
"""Of one request. Each is a piece of work."""
MAX_TOKENS_OF_TEXT = 131_072


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


class TokenizeRequest(RequestModel):
    """A text to split into the tokens of a model.

    `add_special` puts the marks around it that a prompt gets, `parse_special` reads marks in it as such. `with_pieces`
    shows the text of each token.
    """

    model: Name
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    def engine_body(self) -> dict[str, Any]:
        """What the engine gets."""
        return self.model_dump()


class DetokenizeRequest(RequestModel):
    """Tokens to write as the text that they stand for."""

    model: Name
    tokens: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_TOKENS_OF_TEXT)]

    def engine_body(self) -> dict[str, Any]:
        """What the engine gets."""
        return self.model_dump()
