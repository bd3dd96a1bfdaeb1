"""Responses as OpenAI's client uses them, in front of engines that stand in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from appliance.serve.requests.paths import CHAT
from tests.appliance.serve.gateway.site import DIGESTS, Site, eventually, opened
from tests.sim.engines import notes

WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


class City(pydantic.BaseModel):
    city: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "tools": 2}) as made,
    ):
        yield made


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with site.client() as made:
        yield made


def last_body(site: Site) -> dict[str, Any]:
    return dict(notes(site.sockets)[-1]["body"])


def test_text_is_answered_and_nothing_is_stored(site: Site, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="toy", input="abc", instructions="Be brief.", store=True)
    answer = raw.parse()
    assert (answer.output_text, answer.status, answer.object) == ("cba", "completed", "response")
    assert (answer.model, answer.instructions, answer.incomplete_details) == ("toy", "Be brief.", None)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 5, 8)
    assert answer.model_extra is not None
    assert answer.model_extra["store"] is False
    assert answer.model_extra["appliance"]["engine"] == DIGESTS["engine"] == raw.headers["appliance-engine"]
    asked = notes(site.sockets)[-1]
    assert asked["path"] == CHAT
    assert [one["role"] for one in asked["body"]["messages"]] == ["system", "user"]


def test_stream_has_every_event_in_its_order(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="toy", input="think ab", stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    item = ["output_item.added", "content_part.added"]
    done = ["content_part.done", "output_item.done"]
    reasoning = [*item, *["reasoning_text.delta"] * 2, "reasoning_text.done", *done]
    text = [*item, *["output_text.delta"] * 2, "output_text.done", *done]
    assert kinds == ["created", "in_progress", *reasoning, *text, "completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert [one.type for one in last.response.output] == ["reasoning", "message"]
    assert last.response.output_text == "ba"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 5


def test_first_word_arrives_while_the_engine_still_writes(site: Site, client: openai.OpenAI) -> None:
    with client.responses.create(model="toy", input="slow 400", stream=True) as stream:
        assert next(event for event in stream if event.type == "response.output_text.delta").delta == "0 "
    # The engine was stopped long before its last word.
    assert eventually(lambda: "slow 400" in site.left())


@pytest.mark.parametrize("is_stream", [False, True])
def test_functions_are_called_and_their_answers_are_taken(site: Site, client: openai.OpenAI, is_stream: bool) -> None:
    given: dict[str, Any] = {"model": "tools", "tools": [WEATHER], "store": False}
    turns: list[Any] = [{"role": "user", "content": "call two"}]
    if is_stream:
        with client.responses.stream(input=turns, **given) as stream:
            answer: Any = stream.get_final_response()
    else:
        answer = client.responses.create(input=turns, **given)
    calls = [one for one in answer.output if one.type == "function_call"]
    assert [(one.name, one.call_id, json.loads(one.arguments)) for one in calls] == [
        ("first", "id0", {"city": "x"}),
        ("second", "id1", {"city": "x"}),
    ]
    outputs: list[Any] = [{"type": "function_call_output", "call_id": one.call_id, "output": "Rain."} for one in calls]
    last = client.responses.create(input=[*turns, *answer.output, *outputs], **given)
    assert last.output_text == ".niaR"
    roles = [(one["role"], len(one.get("tool_calls", ()))) for one in last_body(site)["messages"]]
    assert roles == [("user", 0), ("assistant", 2), ("tool", 0), ("tool", 0)]


def test_forced_call_of_a_template_without_tools_is_a_call(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "name": "weather"}
    said = '{"city": "x"}'[::-1]
    given: dict[str, Any] = {"model": "toy", "input": said, "tools": [WEATHER], "tool_choice": choice}
    [call] = client.responses.create(**given).output
    assert (call.type, getattr(call, "name", "")) == ("function_call", "weather")
    with client.responses.stream(**given) as stream:
        [call] = stream.get_final_response().output
    assert (call.type, getattr(call, "arguments", "")) == ("function_call", '{"city": "x"}')


def test_schema_binds_the_answer(site: Site, client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="toy", input='{"city": "x"}'[::-1], text_format=City)
    assert answer.output_parsed == City(city="x")
    schema = last_body(site)["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["city"]


def test_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="toy", input="cut ab", max_output_tokens=2)
    assert (answer.status, answer.output_text) == ("incomplete", "ba")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    events = list(client.responses.create(model="toy", input="cut ab", stream=True))
    assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize("said", ["fail late", "odd"])
def test_stream_that_breaks_off_ends_with_an_error(client: openai.OpenAI, said: str) -> None:
    events = list(client.responses.create(model="toy", input=said, stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with (
        pytest.raises(RuntimeError, match="response.completed"),
        client.responses.stream(model="toy", input=said) as stream,
    ):
        stream.get_final_response()


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported", "previous_response_id"),
        ({"background": True}, "unsupported", "background"),
        ({"truncation": "auto"}, "unsupported", "truncation"),
        ({"seed": 1}, "unknown_field", "seed"),
        ({"tools": [{"type": "web_search"}]}, "unsupported", "tools[0].type"),
        ({"tools": [{**WEATHER, "parameters": {"pattern": "("}}]}, "pattern_refused", "tools[0].parameters.pattern"),
        ({"tool_choice": "required"}, "invalid_field", "tool_choice"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "unsupported", None),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported", "input[0].type"),
        (
            {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "["}]},
            "invalid_json",
            "input[0]",
        ),
        ({"input": "x" * (512 * 16 + 1)}, "context_length_exceeded", "input"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": 5}}}}, "schema_refused", None),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(
    site: Site, client: openai.OpenAI, fields: dict[str, Any], code: str, param: str | None
) -> None:
    before = len(notes(site.sockets))
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="toy", input="x", extra_body=fields)
    assert caught.value.code == code
    assert caught.value.param is not None
    assert param in (None, caught.value.param)
    assert len(notes(site.sockets)) == before


def test_errors_have_openais_form(client: openai.OpenAI, site: Site) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nothing", input="x")
    with pytest.raises(openai.AuthenticationError):
        site.client().with_options(api_key="ak-wrong").responses.create(model="toy", input="x")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="toy", input="fail")
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve("resp_1")
    assert caught.value.code == "not_offered"


def test_tokens_are_counted_without_an_answer(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="toy", input="abc")
    assert (counted.object, counted.input_tokens > 3) == ("response.input_tokens", True)
