"""LlamaIndex: chats, streams, completions, a structured answer, embeddings."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

SITE = {"api_base": os.environ["BASE_URL"], "api_key": os.environ["KEY"], "max_retries": 0, "timeout": 120}


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=20)


chat = OpenAILike(
    model="toy", is_chat_model=True, is_function_calling_model=True, context_window=1024, max_tokens=40, temperature=0,
    should_use_structured_outputs=True, **SITE,
)  # fmt: skip
asked = [ChatMessage(role="system", content="You are brief."), ChatMessage(role="user", content="Name a city.")]
assert chat.chat(asked).message.content
parts = [part.delta for part in chat.stream_chat(asked)]
assert len(parts) > 3
assert "".join(filter(None, parts))
assert chat.complete("Name a city.").text
completions = OpenAILike(model="toy", is_chat_model=False, context_window=1024, max_tokens=8, **SITE)
assert completions.complete("Once upon a time").text
assert list(completions.stream_complete("Once upon a time"))
forced = chat.as_structured_llm(Weather).chat(asked)
assert isinstance(forced.raw, Weather)
embed = OpenAILikeEmbedding(model_name="embeds", embed_batch_size=8, **SITE)
assert len(embed.get_text_embedding("the cat")) == 32
assert len(embed.get_text_embedding_batch(["the cat", "a mat"])) == 2
