"""The shipped engine and model behind the gateway, as the clients of OpenAI and Anthropic use their other dialects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from tests.appliance.real_engine import describe_model
from tests.appliance.serve.gateway.site import Site, opened
from tests.appliance.shipped import shipped_model, shipped_runtime
from tests.sim.gguf_models import Shape, write_model

pytestmark = pytest.mark.ci
TINY = Shape("llama", layers=1, width=64, heads=2, kv_heads=2, head_dim=32, ff=64, vocab=320, context=2048)
ASKED = "Name the capital of France in one sentence."
HERMES = """{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' }}{%- for tool in tools %}
{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\nFor each call answer within <tool_call></tool_call> tags:\\n<tool_call>\\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>' + message.role }}
{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""A template that shows tools, as those of the Hermes and Qwen families do."""


class City(pydantic.BaseModel):
    """Get the weather of a city."""

    city: str = pydantic.Field(max_length=12)


SCHEMA = City.model_json_schema()
OPENAI_TOOL: Any = {"type": "function", "name": "City", "description": "x", "parameters": SCHEMA}
ANTHROPIC_TOOL: Any = {"name": "City", "description": "x", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    unpacked: UnpackedRuntime = of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))
    has_avx2 = {"avx2", "fma", "f16c", "bmi2"} <= set(Path("/proc/cpuinfo").read_text().split())
    runtime = unpacked.folder_with("haswell" if has_avx2 else "x64")
    hermes = tmp_path_factory.mktemp("hermes") / "m.gguf"
    write_model(hermes, TINY, seed=1, template=HERMES)
    paths = {"toy": shipped_model()[1], "hermes": hermes}

    def spec(_folder: Path, name: str, slots: int) -> EngineSpec:
        return EngineSpec(
            name, describe_model(paths[name]), paths[name], runtime, 512 if name == "toy" else 2048, slots, 1
        )

    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "hermes": 1}, spec=spec) as made,
    ):
        yield made


@pytest.fixture
def openais(site: Site) -> Iterator[openai.OpenAI]:
    with site.client().with_options(timeout=120) as made:
        yield made


@pytest.fixture
def anthropics(site: Site) -> Iterator[anthropic.Anthropic]:
    address = f"http://127.0.0.1:{site.port}"
    with anthropic.Anthropic(base_url=address, api_key=site.keys["all"], max_retries=0, timeout=120) as made:
        yield made


def test_responses_answer_whole_and_in_a_stream(openais: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "toy", "input": ASKED, "temperature": 0, "max_output_tokens": 24}
    answer = openais.responses.create(**given)
    assert "Paris" in answer.output_text
    assert answer.usage is not None
    with openais.responses.stream(**given) as stream:
        events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.output_text == "".join(deltas)
    assert "Paris" in last.response.output_text
    assert last.response.usage is not None
    assert last.response.usage.input_tokens == answer.usage.input_tokens
    assert openais.responses.input_tokens.count(model="toy", input=ASKED).input_tokens == answer.usage.input_tokens


def test_responses_have_log_probabilities(openais: openai.OpenAI) -> None:
    answer = openais.responses.create(
        model="toy", input=ASKED, max_output_tokens=3, top_logprobs=2, include=["message.output_text.logprobs"]
    )
    [message] = answer.output
    assert message.type == "message"
    [part] = message.content
    assert part.type == "output_text"
    assert part.logprobs
    assert part.logprobs[0].logprob <= 0
    assert len(part.logprobs[0].top_logprobs) == 2


def test_responses_follow_a_schema_and_call_a_function(openais: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "toy", "input": ASKED, "temperature": 0, "max_output_tokens": 60}
    assert isinstance(openais.responses.parse(text_format=City, **given).output_parsed, City)
    given |= {"tools": [OPENAI_TOOL], "tool_choice": {"type": "function", "name": "City"}}
    [call] = openais.responses.create(**given).output
    assert call.type == "function_call"
    City.model_validate_json(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    turns: Any = [{"role": "user", "content": ASKED}, call, output]
    assert openais.responses.create(model="toy", input=turns, max_output_tokens=8).output_text


def test_messages_answer_whole_and_in_a_stream(anthropics: anthropic.Anthropic) -> None:
    turns: Any = [{"role": "user", "content": ASKED}]
    given: dict[str, Any] = {"model": "toy", "max_tokens": 24, "messages": turns, "extra_body": {"temperature": 0}}
    answer = anthropics.messages.create(**given)
    [block] = answer.content
    assert block.type == "text"
    assert "Paris" in block.text
    with anthropics.messages.stream(**given) as stream:
        pieces = list(stream.text_stream)
        last = stream.get_final_message()
    assert len(pieces) > 3
    assert "Paris" in "".join(pieces)
    assert last.stop_reason in ("end_turn", "max_tokens")
    tokens = [one.usage.input_tokens + (one.usage.cache_read_input_tokens or 0) for one in (answer, last)]
    assert tokens == [anthropics.messages.count_tokens(model="toy", messages=turns).input_tokens] * 2


def test_messages_follow_a_schema_and_call_a_tool(anthropics: anthropic.Anthropic) -> None:
    turns: Any = [{"role": "user", "content": ASKED}]
    given: dict[str, Any] = {"model": "toy", "max_tokens": 60, "messages": turns, "extra_body": {"temperature": 0}}
    assert isinstance(anthropics.messages.parse(output_format=City, **given).parsed_output, City)
    given |= {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}}
    answer = anthropics.messages.create(**given)
    [call] = answer.content
    assert (call.type, answer.stop_reason) == ("tool_use", "tool_use")
    City.model_validate(getattr(call, "input", None))
    result = {"type": "tool_result", "tool_use_id": getattr(call, "id", ""), "content": "Rain."}
    turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert anthropics.messages.create(model="toy", max_tokens=8, messages=turns).content


def test_template_with_tools_shows_calls_of_before(openais: openai.OpenAI, anthropics: anthropic.Anthropic) -> None:
    turns: Any = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "1", "name": "City", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "1", "output": "Rain."},
    ]
    counted = openais.responses.input_tokens.count(model="hermes", input=turns, tools=[OPENAI_TOOL]).input_tokens
    fewer = openais.responses.input_tokens.count(model="hermes", input=turns[:1], tools=[OPENAI_TOOL]).input_tokens
    bare = openais.responses.input_tokens.count(model="hermes", input=turns[:1]).input_tokens
    assert counted > fewer > bare
    with openais.responses.stream(model="hermes", input=turns, tools=[OPENAI_TOOL], max_output_tokens=4) as stream:
        assert list(stream)[-1].type in ("response.completed", "response.incomplete")
    same: Any = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "City", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "Rain."}]},
    ]
    given: dict[str, Any] = {"model": "hermes", "messages": same, "tools": [ANTHROPIC_TOOL]}
    assert anthropics.messages.count_tokens(**given).input_tokens == counted
    with anthropics.messages.stream(max_tokens=4, **given) as messages:
        assert messages.get_final_message().stop_reason == "max_tokens"


def test_what_the_engine_refuses_has_the_dialects_form(openais: openai.OpenAI, anthropics: anthropic.Anthropic) -> None:
    long: Any = "x " * 1500
    with pytest.raises(openai.BadRequestError):
        openais.responses.create(model="toy", input=long)
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropics.messages.create(model="toy", max_tokens=9, messages=[{"role": "user", "content": long}])
    error: Any = caught.value.body
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert error["error"]["code"] == "exceed_context_size_error"
