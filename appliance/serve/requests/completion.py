"""The body of `POST /v1/completions`, after OpenAI's reference."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from appliance.serve.requests.fields import MAX_LOGPROBS, GenerationRequest, TokenId

MAX_PROMPTS = 256
TokenPrompt = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Prompts = Annotated[list[str], Field(fail_fast=True)] | Annotated[list[TokenPrompt], Field(fail_fast=True)]


class CompletionRequest(GenerationRequest):
    """Texts to go on with. Each prompt is a text, or its tokens as numbers."""

    unsupported: ClassVar = {
        "best_of": (1,),
        "echo": (),
        "prompt_logprobs": (),
        "suffix": (),
        "service_tier": ("auto", "default"),
        "store": (),
    }

    prompt: str | TokenPrompt | Annotated[Prompts, Field(min_length=1, max_length=MAX_PROMPTS)]
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, in order."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)
