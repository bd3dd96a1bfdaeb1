"""The bodies of `POST /tokenize` and `POST /detokenize`, after llama-server's own routes of these names."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from appliance.serve.requests.fields import Name, RequestModel, TokenId

MAX_TOKENS_OF_TEXT = 131_072


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
