"""What a body of another dialect means as a chat, and what an answer becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.serve.dialects.chat_answer import read_answer
from appliance.serve.dialects.forms import REQUEST_MODELS, read_request
from appliance.serve.dialects.messages_answer import write_message
from appliance.serve.requests.paths import (
    ANTHROPIC,
    CHAT,
    CHAT_TOKENS,
    COUNT_TOKENS,
    INPUT_TOKENS,
    MESSAGES,
    OPENAI,
    RESPONSES,
    ROUTES,
    dialect_of,
)
from appliance.serve.requests.refusal import Refusal, refused_field
from appliance.serve.requests.work import plan_work
from appliance.serve.upstream.connection import LostError

CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
USE = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^\\d$"}}}


def meant(route: str, **fields: Any) -> dict[str, Any]:
    """The body that an engine gets."""
    request, form = read_request(route, {"model": "toy", **fields})
    return dict(json.loads(form.adapt(plan_work(request, has_tools=True)).bodies[0]))


def said(*content: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": one} for role, one in zip(("user", "assistant") * 4, content, strict=False)]


def test_every_route_has_a_model_of_its_body() -> None:
    assert REQUEST_MODELS.keys() == ROUTES.keys()


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (MESSAGES, ANTHROPIC),
        (COUNT_TOKENS, ANTHROPIC),
        ("/v1/messages/batches/x", ANTHROPIC),
        ("/v1/messages2", OPENAI),
        (CHAT, OPENAI),
        ("/", OPENAI),
    ],
)
def test_errors_have_the_form_of_the_path(path: str, dialect: str) -> None:
    assert dialect_of(path) == dialect


def test_what_a_model_wrote_in_one_turn_is_one_message() -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    text = {"role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    output = {"type": "function_call_output", "call_id": "1", "output": "y"}
    items = [
        {"role": "user", "content": "a"},
        thought,
        text,
        CALL,
        CALL,
        output,
        text,
        {"role": "user", "content": "b"},
    ]
    messages = meant(RESPONSES, input=items)["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "assistant", "user"]
    answer = messages[1]
    assert (answer["reasoning_content"], answer["content"], len(answer["tool_calls"])) == ("hm", "x", 2)


def test_instructions_are_one_message_at_the_beginning() -> None:
    items = [{"role": "developer", "content": "b"}, {"role": "user", "content": "x"}]
    assert meant(RESPONSES, instructions="a", input=items)["messages"] == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "x"},
    ]
    system = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert meant(MESSAGES, max_tokens=1, system=system, messages=said("x"))["messages"][0]["content"] == "a\n\nb"


def test_turns_of_one_role_are_one_turn() -> None:
    turns = [*said("a"), *said("b"), {"role": "assistant", "content": "c"}, {"role": "assistant", "content": "d"}]
    messages = meant(MESSAGES, max_tokens=1, messages=turns)["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant"]
    assert [part["text"] for part in messages[0]["content"]] == ["a", "b"]
    assert messages[1]["content"] == "cd"


def test_results_come_before_the_text_beside_them() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": "y", "is_error": True}
    turns = said("a", [{"type": "thinking", "thinking": "hm", "signature": "s"}, USE])
    turns += said([result, {"type": "text", "text": "b"}])
    messages = meant(MESSAGES, max_tokens=1, messages=turns)["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert messages[2]["content"] == "Error: y"


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none")],
)
def test_choice_of_a_tool(choice: dict[str, Any], wanted: str) -> None:
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}
    choice = {**choice, "disable_parallel_tool_use": True}
    body = meant(MESSAGES, max_tokens=1, messages=said("x"), tools=[tool], tool_choice=choice)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (wanted, False)
    assert body["tools"][0]["function"]["name"] == "f"


def test_effort_and_thinking_reach_the_template() -> None:
    more: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 5}, "output_config": {"effort": "max"}}
    body = meant(MESSAGES, max_tokens=1, messages=said("x"), **more)
    assert (body["chat_template_kwargs"], body["reasoning_effort"]) == ({"enable_thinking": True}, "xhigh")
    assert meant(RESPONSES, input="x", reasoning={"effort": "low", "summary": "auto"})["reasoning_effort"] == "low"
    off = meant(MESSAGES, max_tokens=1, messages=said("x"), thinking={"type": "disabled"})
    assert off["chat_template_kwargs"] == {"enable_thinking": False}


def test_response_repeats_a_schema_as_it_was_sent() -> None:
    """For the engine, its pattern is written anew."""
    tool = {"type": "function", "name": "f", "parameters": SCHEMA}
    request, form = read_request(RESPONSES, {"model": "toy", "input": "x", "tools": [tool]})
    plan_work(request, has_tools=True)
    answer = form.whole({"choices": [{"message": {"content": "y"}, "finish_reason": "stop"}]})
    assert answer["tools"] == [tool]
    assert (answer["store"], answer["previous_response_id"], answer["status"]) == (False, None, "completed")


@pytest.mark.parametrize(("route", "more"), [(INPUT_TOKENS, {"input": "x"}), (COUNT_TOKENS, {"messages": said("x")})])
def test_count_asks_the_engine_for_no_answer(route: str, more: dict[str, Any]) -> None:
    request, form = read_request(route, {"model": "toy", **more})
    work = form.adapt(plan_work(request, has_tools=False))
    assert (work.path, work.is_stream) == (CHAT_TOKENS, False)
    assert form.whole({"input_tokens": 7})["input_tokens"] == 7
    for count in (None, -1, "7", True):
        with pytest.raises(LostError):
            form.whole({"input_tokens": count})


@pytest.mark.parametrize(
    ("route", "field", "renamed"),
    [
        (RESPONSES, "tools[3].function.parameters.pattern", "tools[3].parameters.pattern"),
        (RESPONSES, "response_format.json_schema.schema.type", "text.format.schema.type"),
        (RESPONSES, "messages[0].tool_calls[0].function.arguments", "input"),
        (RESPONSES, "messages", "input"),
        (RESPONSES, "logprobs", "include"),
        (RESPONSES, "model", "model"),
        (MESSAGES, "tools[3].function.parameters.pattern", "tools[3].input_schema.pattern"),
        (MESSAGES, "response_format.json_schema.schema.type", "output_config.format.schema.type"),
        (MESSAGES, "messages[0].content", "messages[0]"),
        (MESSAGES, "messages", "messages"),
        (MESSAGES, "tool_choice.function.name", "tool_choice.name"),
    ],
)
def test_refusal_names_the_field_as_it_was_sent(route: str, field: str, renamed: str) -> None:
    body = {"input": "x"} if route == RESPONSES else {"max_tokens": 1, "messages": said("x")}
    form = read_request(route, {"model": "toy", **body})[1]
    refused = form.refused(refused_field("x", field, f"The field {field!r} is not valid."))
    assert (refused.param, refused.message) == (renamed, f"The field {renamed!r} is not valid.")


@pytest.mark.parametrize(
    "value",
    [{}, {"choices": []}, {"choices": [1]}, {"choices": [{"message": []}]}, {"choices": [{"message": {"content": 1}}]}],
)
def test_answer_of_another_shape_is_an_engine_that_is_lost(value: dict[str, Any]) -> None:
    with pytest.raises(LostError):
        read_answer(value)


def test_tokens_that_the_engine_had_read_before_are_counted_apart() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
    answer = read_answer({"choices": [{"message": {"content": "y"}, "finish_reason": "length"}], "usage": usage})
    message = write_message(answer, "toy")
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"] == {
        "input_tokens": 4,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "output_tokens": 2,
    }


def test_empty_message_of_a_user_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        meant(MESSAGES, max_tokens=1, messages=[{"role": "user", "content": []}])
    assert (caught.value.code, caught.value.param) == ("invalid_field", "messages[0].content")
