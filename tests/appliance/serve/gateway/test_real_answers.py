"""The shipped engine and model behind the gateway, as clients use them: OpenAI's, and those that are built on it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import UnpackedRuntime, of_wheel
from tests.appliance.real_engine import describe_model
from tests.appliance.serve.gateway.site import Site, eventually, opened
from tests.appliance.shipped import shipped_model, shipped_runtime
from tests.sim.gguf_models import Shape, write_model

pytestmark = pytest.mark.ci
CANARY = "canary-77aa"
TINY = Shape("llama", layers=1, width=64, heads=2, kv_heads=2, head_dim=32, ff=64, vocab=320, context=512)
STRICT = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system here: ' + "
    "message['content']) }}{% endif %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
)
SAID: list[Any] = [{"role": "user", "content": "What is the weather in Paris? Use the function."}]


class Weather(pydantic.BaseModel):
    """Get the weather of a city."""

    city: str = pydantic.Field(max_length=20)
    unit: str = pydantic.Field(pattern=r"^[CF]$")


TOOL: Any = {
    "type": "function",
    "function": {"name": "Weather", "description": "x", "parameters": Weather.model_json_schema()},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    unpacked: UnpackedRuntime = of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime"))
    model = shipped_model()[1]
    # The plain variant takes five times as long.
    has_avx2 = {"avx2", "fma", "f16c", "bmi2"} <= set(Path("/proc/cpuinfo").read_text().split())
    runtime = unpacked.folder_with("haswell" if has_avx2 else "x64")

    strict = tmp_path_factory.mktemp("strict") / "m.gguf"
    write_model(strict, TINY, seed=1, template=STRICT)

    def spec(_folder: Path, name: str, slots: int) -> EngineSpec:
        path = strict if name == "strict" else model
        return EngineSpec(name, describe_model(path), path, runtime, 512 if path == strict else 1024, slots, 1)

    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "strict": 1}, spec=spec) as made,
    ):
        yield made


@pytest.fixture
def client(site: Site) -> openai.OpenAI:
    return site.client().with_options(timeout=120)


def test_named_function_is_called_though_the_template_knows_no_tools(client: openai.OpenAI) -> None:
    """As LangChain's `with_structured_output(method="function_calling")` and instructor ask."""
    answer = client.chat.completions.create(
        model="toy",
        messages=SAID,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "Weather"}},
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=60,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    Weather.model_validate_json(call.function.arguments)
    # The next turn, as both write it.
    turns = [*SAID, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    told = client.chat.completions.create(model="toy", messages=turns, max_tokens=8)
    assert told.choices[0].message.content


def test_required_function_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="toy", messages=SAID, tools=[TOOL], tool_choice="required", temperature=0, max_tokens=60
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    [call] = calls
    assert call.type == "function"
    assert call.function.name == "Weather"
    Weather.model_validate_json(call.function.arguments)


def test_answer_is_parsed_by_its_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="toy", messages=SAID, response_format=Weather, temperature=0, max_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_list_of_prompts_is_answered_in_order(client: openai.OpenAI) -> None:
    prompts = ["Two plus two is", "The capital of France is", "Once upon a time"]
    one_by_one = [
        client.completions.create(model="toy", prompt=prompt, max_tokens=4, temperature=0).choices[0].text
        for prompt in prompts
    ]
    answer = client.completions.create(model="toy", prompt=prompts, max_tokens=4, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.text for choice in answer.choices}) == 3
    # Greedy output may differ with what runs beside it; the first letters of these do not.
    assert [choice.text[:2] for choice in answer.choices] == [text[:2] for text in one_by_one]


def test_several_answers_of_one_seed_differ(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="toy", messages=SAID, n=3, seed=1, temperature=1.5, max_tokens=12, stop=["\n\n\n"]
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_log_probability_of_each_token_comes_without_others_being_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="toy", messages=SAID, max_tokens=2, logprobs=True)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert logprobs.content[0].logprob <= 0


def test_what_the_template_refuses_is_the_users_mistake(client: openai.OpenAI) -> None:
    said: Any = {"role": "user", "content": CANARY}
    with pytest.raises(openai.BadRequestError, match="no system here"):
        client.chat.completions.create(model="strict", messages=[{"role": "system", "content": CANARY}, said])
    assert client.chat.completions.create(model="strict", messages=[said], max_tokens=1).choices


def test_what_the_engine_refuses_is_the_users_mistake(site: Site) -> None:
    """A prompt of too many tokens, and messages that the engine does not take."""
    with pytest.raises(openai.BadRequestError):
        site.client().completions.create(model="toy", prompt="x " * 3000)
    two: list[Any] = [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "x"}]
    with pytest.raises(openai.BadRequestError):
        site.client().chat.completions.create(model="toy", messages=two)


def test_no_text_of_a_user_is_in_the_engines_log(site: Site) -> None:
    schema = {"type": "object", "properties": {CANARY: {"type": "string", "format": CANARY}, "a": True}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for more in ({"response_format": form}, {"chat_template_kwargs": {"enable_thinking": CANARY}}, {"stop": [CANARY]}):
        site.ask(CANARY, max_tokens=2, **more)
    site.call("POST", "/v1/completions", {"model": "toy", "prompt": [2_000_000_000], "user": CANARY})
    site.call("POST", "/v1/completions", {"model": "toy", "prompt": f"{CANARY} " * 900})
    assert site.ask("x", max_tokens=1)[0] == 200
    found = {path.name: path.read_text("utf-8", "replace") for path in site.sockets.glob("*.log")}
    assert found
    assert [name for name, text in found.items() if CANARY in text] == []


def test_engine_survives_every_schema_of_the_attacks(site: Site) -> None:
    from tests.attacks.test_t80_schemas import ENDLESS

    for schema in ENDLESS:
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        status, _, body = site.ask("x", response_format=form)
        assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")
    assert eventually(lambda: site.ask("x", max_tokens=1)[0] == 200)
