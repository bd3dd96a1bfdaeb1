"""LiteLLM: OpenAI's routes, Responses, Anthropic's messages, embeddings, ranking, and its own errors."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its start asks for a list of prices

import litellm

litellm.suppress_debug_info = True
BASE, KEY = os.environ["BASE_URL"], os.environ["KEY"]
SITE = {"api_base": BASE, "api_key": KEY, "max_retries": 0, "timeout": 120}
SAID = [{"role": "user", "content": "Name a city."}]

answer = litellm.completion(model="openai/toy", messages=SAID, max_tokens=20, temperature=0, **SITE)
assert answer.choices[0].message.content
assert answer.usage.total_tokens
parts = list(litellm.completion(model="openai/toy", messages=SAID, max_tokens=20, stream=True, **SITE))
assert len(parts) > 3
text = litellm.text_completion(model="text-completion-openai/toy", prompt="Once upon a time", max_tokens=8, **SITE)
assert text.choices[0].text
tool = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}}}  # fmt: skip
called = litellm.completion(
    model="openai/toy", messages=SAID, tools=[tool], tool_choice="required", max_tokens=60, **SITE
)
assert called.choices[0].message.tool_calls[0].function.name == "look"
said = litellm.responses(model="openai/toy", input="Name a city.", max_output_tokens=20, **SITE)
assert said.output
messages = litellm.completion(
    model="anthropic/toy", messages=SAID, max_tokens=20, api_base=BASE.removesuffix("/v1"), api_key=KEY, timeout=120
)
assert messages.choices[0].message.content
vectors = litellm.embedding(model="openai/embeds", input=["the cat", "a mat"], **SITE)
assert len(vectors.data) == 2
assert len(vectors.data[0]["embedding"]) == 32
ranked = litellm.rerank(
    model="jina_ai/ranks", query="the cat", documents=["the mat", "a cat sat"], top_n=1, api_base=BASE, api_key=KEY
)
assert [one["index"] for one in ranked.results] in ([0], [1])
try:
    litellm.completion(model="openai/nothing", messages=SAID, **SITE)
    refused = ""
except litellm.NotFoundError as error:
    refused = str(error)
assert "is not served here" in refused
