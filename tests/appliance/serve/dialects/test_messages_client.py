"""Messages as Anthropic's client uses them, in front of engines that stand in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

from appliance.serve.requests.paths import CHAT
from tests.appliance.serve.gateway.site import DIGESTS, Site, eventually, opened
from tests.sim.engines import notes

WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
PNG: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


class City(pydantic.BaseModel):
    city: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "tools": 2, "narrow": 1}) as made,
    ):
        yield made


def client_of(site: Site, key: str = "all") -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=f"http://127.0.0.1:{site.port}", api_key=site.keys.get(key, key), max_retries=0, timeout=20
    )


@pytest.fixture
def client(site: Site) -> Iterator[anthropic.Anthropic]:
    with client_of(site) as made:
        yield made


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def last_body(site: Site) -> dict[str, Any]:
    return dict(notes(site.sockets)[-1]["body"])


def test_question_is_answered(site: Site, client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="toy",
        max_tokens=9,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=said("abc"),
        stop_sequences=["z"],
        metadata={"user_id": "u"},
    )
    answer = raw.parse()
    assert [(block.type, getattr(block, "text", "")) for block in answer.content] == [("text", "cba")]
    assert (answer.stop_reason, answer.role, answer.type, answer.model) == ("end_turn", "assistant", "message", "toy")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 5)
    assert raw.headers["appliance-engine"] == DIGESTS["engine"]
    assert answer._request_id == raw.headers["x-request-id"]
    asked = notes(site.sockets)[-1]
    assert asked["path"] == CHAT
    assert asked["body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["body"]["max_tokens"], asked["body"]["stop"]) == (9, ["z"])
    assert "user" not in asked["body"]


def test_stream_has_every_event_in_its_order(client: anthropic.Anthropic) -> None:
    events = list(client.messages.create(model="toy", max_tokens=9, messages=said("think ab"), stream=True))
    block = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"]
    assert [event.type for event in events] == ["message_start", *block, *block, "message_delta", "message_stop"]
    last = events[-2]
    assert last.type == "message_delta"
    assert (last.delta.stop_reason, last.usage.output_tokens, last.usage.input_tokens) == ("end_turn", 5, 3)


def test_first_word_arrives_while_the_engine_still_writes(site: Site, client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="toy", max_tokens=9, messages=said("slow 400")) as stream:
        assert next(stream.text_stream) == "0 "
    # The engine was stopped long before its last word.
    assert eventually(lambda: "slow 400" in site.left())


def test_stream_is_one_text(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="toy", max_tokens=9, messages=said("abc")) as stream:
        assert stream.get_final_text() == "cba"


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools_are_called_and_their_results_are_taken(site: Site, client: anthropic.Anthropic, is_stream: bool) -> None:
    given: dict[str, Any] = {"model": "tools", "max_tokens": 9, "tools": [WEATHER]}
    turns = said("call two")
    if is_stream:
        with client.messages.stream(messages=turns, **given) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = client.messages.create(messages=turns, **given)
    assert answer.stop_reason == "tool_use"
    assert [(one.type, one.name, one.id, one.input) for one in answer.content] == [
        ("tool_use", "first", "id0", {"city": "x"}),
        ("tool_use", "second", "id1", {"city": "x"}),
    ]
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": "id0", "content": "No such city.", "is_error": True},
        {"type": "tool_result", "tool_use_id": "id1", "content": [{"type": "text", "text": "Rain."}]},
    ]
    turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    last = client.messages.create(messages=turns, **given)
    assert [getattr(block, "text", "") for block in last.content] == [".niaR"]
    sent = last_body(site)["messages"]
    assert [(one["role"], len(one.get("tool_calls", ()))) for one in sent] == [
        ("user", 0),
        ("assistant", 2),
        ("tool", 0),
        ("tool", 0),
    ]
    assert sent[2]["content"] == "Error: No such city."


def test_forced_call_of_a_template_without_tools_is_a_call(client: anthropic.Anthropic) -> None:
    given: dict[str, Any] = {
        "model": "toy",
        "max_tokens": 9,
        "messages": said('{"city": "x"}'[::-1]),
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "weather"},
    }
    [call] = client.messages.create(**given).content
    assert (call.type, getattr(call, "input", None)) == ("tool_use", {"city": "x"})
    with client.messages.stream(**given) as stream:
        [call] = stream.get_final_message().content
    assert (call.type, getattr(call, "input", None)) == ("tool_use", {"city": "x"})


def test_call_that_is_cut_off_is_no_call(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="tools", max_tokens=9, messages=said("half f"), tools=[WEATHER])
    assert ([block.type for block in answer.content], answer.stop_reason) == (["text"], "max_tokens")


def test_schema_binds_the_answer(site: Site, client: anthropic.Anthropic) -> None:
    answer = client.messages.parse(model="toy", max_tokens=9, messages=said('{"city": "x"}'[::-1]), output_format=City)
    assert answer.parsed_output == City(city="x")
    assert last_body(site)["response_format"]["json_schema"]["schema"]["required"] == ["city"]


@pytest.mark.parametrize("text", ["fail late", "odd"])
def test_stream_that_breaks_off_ends_with_an_error(client: anthropic.Anthropic, text: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(client.messages.create(model="toy", max_tokens=9, messages=said(text), stream=True))
    assert caught.value.body["type"] == "error"  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": [*said("x"), {"role": "user", "content": [PNG]}]}, "unsupported", "messages[1].content[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "unsupported", "tools[0].type"),
        ({"mcp_servers": [{"type": "url"}]}, "unsupported", "mcp_servers"),
        ({"grammar": "root ::= root"}, "unknown_field", "grammar"),
        ({"temperature": 1.5}, "invalid_field", "temperature"),
        ({"tool_choice": {"type": "any"}}, "invalid_field", "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "invalid_field", "tool_choice.name"),
        (
            {"tools": [{"name": "f", "input_schema": {"pattern": "("}}]},
            "pattern_refused",
            "tools[0].input_schema.pattern",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]},
            "invalid_field",
            "messages[0].content[0]",
        ),
        ({"messages": said("x" * (512 * 16 + 1))}, "context_length_exceeded", "messages"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(
    site: Site, client: anthropic.Anthropic, fields: dict[str, Any], code: str, param: str
) -> None:
    before = len(notes(site.sockets))
    given: dict[str, Any] = {"model": "toy", "max_tokens": 9, "messages": said("x"), "extra_body": fields}
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**given)
    error: Any = caught.value.body
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    assert len(notes(site.sockets)) == before


def test_errors_have_anthropics_form(client: anthropic.Anthropic, site: Site) -> None:
    given: dict[str, Any] = {"max_tokens": 9, "messages": said("x")}
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nothing", **given)
    with pytest.raises(anthropic.PermissionDeniedError) as forbidden, client_of(site, "narrow") as other:
        other.messages.create(model="toy", **given)
    with pytest.raises(anthropic.AuthenticationError) as unknown, client_of(site, "ak-wrong") as other:
        other.messages.create(model="toy", **given)
    with pytest.raises(anthropic.BadRequestError) as failed:
        client.messages.create(model="toy", max_tokens=9, messages=said("fail"))
    kinds = [one.value.body["error"]["type"] for one in (missing, forbidden, unknown, failed)]  # type: ignore[index]
    assert kinds == ["not_found_error", "permission_error", "authentication_error", "invalid_request_error"]
    status, _, body = site.call("POST", "/v1/messages/batches", {})
    found = json.loads(body)
    assert (status, found["type"], found["error"]["code"]) == (404, "error", "not_offered")
    assert found["request_id"]


def test_tokens_are_counted_without_an_answer(site: Site, client: anthropic.Anthropic) -> None:
    count = client.messages.count_tokens(model="toy", messages=said("abc"), system="Be brief.", tools=[])
    assert count.input_tokens > 3
    assert notes(site.sockets)[-1]["path"].endswith("/input_tokens")


def test_models_are_listed_and_described(client: anthropic.Anthropic) -> None:
    assert sorted(model.id for model in client.models.list()) == ["narrow", "tools", "toy"]
    assert client.models.retrieve("toy").id == "toy"


def test_client_of_what_is_not_settled_yet_works_as_well(client: anthropic.Anthropic) -> None:
    """It asks for the same route, with a query."""
    answer = client.beta.messages.create(model="toy", max_tokens=9, messages=said("abc"), betas=["x-2026-01-01"])
    assert [getattr(block, "text", "") for block in answer.content] == ["cba"]


def test_runner_of_tools_goes_on_until_there_is_an_answer(client: anthropic.Anthropic) -> None:
    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"{city} Rain."

    runner = client.beta.messages.tool_runner(
        model="tools", max_tokens=9, messages=said("call weather"), tools=[weather]
    )
    assert [getattr(block, "text", "") for block in runner.until_done().content] == [".niaR x"]
