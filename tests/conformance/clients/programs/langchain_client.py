"""LangChain: chats, streams, structured answers by both methods, a bound tool, Responses, completions, embeddings."""

import asyncio
import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

SITE = {"base_url": os.environ["BASE_URL"], "api_key": os.environ["KEY"], "max_retries": 0, "timeout": 120}
ASKED = "What is the weather in Paris?"


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=20)
    unit: str = Field(pattern="^[CF]$")


@tool
def look_up(city: str) -> str:
    """Look up the weather of a city."""
    return f"rain in {city}"


chat = ChatOpenAI(model="toy", temperature=0, max_tokens=60, **SITE)
answer = chat.invoke([("system", "You are brief."), ("user", ASKED)])
assert answer.content, answer
assert answer.usage_metadata["output_tokens"] > 0
parts = list(chat.stream(ASKED, stream_usage=True))
assert len(parts) > 3
assert any(part.usage_metadata for part in parts)
assert asyncio.run(chat.ainvoke(ASKED)).content
for method in ("function_calling", "json_schema"):
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(ASKED), Weather), method
[call] = chat.bind_tools([look_up], tool_choice="look_up").invoke(ASKED).tool_calls
assert call["name"] == "look_up"
assert isinstance(call["args"]["city"], str)
answers = chat.batch([ASKED, "Count to three.", "Say yes."])
assert len(answers) == 3
assert all(one.content for one in answers)
with_responses = ChatOpenAI(model="toy", temperature=0, max_tokens=20, use_responses_api=True, **SITE)
assert with_responses.invoke(ASKED).text
assert len(list(with_responses.stream(ASKED))) > 3
assert OpenAI(model="toy", max_tokens=8, **SITE).invoke("Once upon a time")
vectors = OpenAIEmbeddings(model="embeds", check_embedding_ctx_length=False, **SITE).embed_documents(
    ["the cat", "a mat"]
)
assert [len(vector) for vector in vectors] == [32, 32]
