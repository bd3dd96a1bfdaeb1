"""A request that asks for several answers is several pieces of work, and one answer."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.appliance.serve.gateway.site import Site, eventually, opened, question
from tests.sim.engines import notes

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "tools": 2, "embeds": 2}) as made,
    ):
        yield made


def post(site: Site, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, _, answer = site.call("POST", path, body)
    return status, json.loads(answer)


def events(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def bodies(site: Site, count: int) -> list[dict[str, Any]]:
    return [note["body"] for note in notes(site.sockets)[-count:]]


def test_list_of_prompts_is_answered_in_order(site: Site) -> None:
    status, answer = post(site, "/v1/completions", {"model": "toy", "prompt": ["ab", "cd", "ef"], "max_tokens": 5})
    assert status == 200
    assert [(one["index"], one["text"]) for one in answer["choices"]] == [(0, "ba"), (1, "dc"), (2, "fe")]
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 15, "total_tokens": 24}
    assert answer["appliance"]["model"] == site.models["toy"]
    assert sorted(body["prompt"] for body in bodies(site, 3)) == ["ab", "cd", "ef"]


def test_several_answers_have_seeds_of_their_own_and_count_their_prompt_once(site: Site) -> None:
    status, answer = post(site, "/v1/chat/completions", question("abc", n=3, seed=7))
    assert (status, [choice["index"] for choice in answer["choices"]]) == (200, [0, 1, 2])
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 15, "total_tokens": 18}
    assert sorted(body["seed"] for body in bodies(site, 3)) == [7, 8, 9]
    assert all("n" not in body for body in bodies(site, 3))


def test_stream_of_several_answers_has_one_id_one_count_and_one_end(site: Site) -> None:
    status, _, body = site.ask("abc", n=2, stream=True, stream_options={"include_usage": True})
    *chunks, last = events(body)
    texts = ["", ""]
    for chunk in chunks:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    assert (status, texts, len({chunk["id"] for chunk in chunks})) == (200, ["cba", "cba"], 1)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 10)


def test_stream_of_several_answers_ends_with_the_error_of_one(site: Site) -> None:
    before = len(notes(site.sockets))
    _, _, body = site.ask("fail late", n=3, stream=True)
    lines = [line for line in body.splitlines() if line]
    assert json.loads(lines[-1].removeprefix(b"data: "))["error"]["message"] == "Compute error."
    assert (len(lines), len(notes(site.sockets)) - before) == (2, 1)


@pytest.mark.parametrize("n", [1, 2])
def test_stream_without_its_mark_of_the_end_ends_with_an_error(site: Site, n: int) -> None:
    _, _, body = site.ask("stop early", n=n, stream=True)
    *_, last = [line for line in body.splitlines() if line]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_lost"


def test_stream_with_an_error_in_it_counts_as_failed(site: Site) -> None:
    def failed() -> int:
        text = site.call("GET", "/metrics", key=None)[2].decode()
        found = re.search(r'requests_total\{model="toy",route="/v1/chat/completions",status="500"\} (\d+)', text)
        return int(found[1]) if found else 0

    before = failed()
    assert b"Compute error." in site.ask("fail late", stream=True)[2]
    assert eventually(lambda: failed() == before + 1)


def test_each_text_for_embeddings_is_a_piece(site: Site) -> None:
    status, answer = post(site, "/v1/embeddings", {"model": "embeds", "input": ["a", "b", "a"]})
    assert (status, [one["index"] for one in answer["data"]]) == (200, [0, 1, 2])
    assert answer["data"][0]["embedding"] == answer["data"][2]["embedding"] != answer["data"][1]["embedding"]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert len(bodies(site, 3)) == 3


def test_piece_that_is_refused_refuses_the_request(site: Site) -> None:
    status, answer = post(site, "/v1/completions", {"model": "toy", "prompt": ["ab", "fail", "cd"]})
    assert (status, answer["error"]["message"]) == (400, "too long")


def test_template_with_tools_gets_the_named_one_as_required(site: Site) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    status, _, _ = site.ask("x", "tools", tools=[TOOL, other], tool_choice=NAMED)
    [body] = bodies(site, 1)
    assert (status, body["tool_choice"]) == (200, "required")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]


def test_template_without_tools_is_made_to_call_by_a_schema(site: Site) -> None:
    status, answer = post(site, "/v1/chat/completions", question('}"siraP" :"ytic"{', tools=[TOOL], tool_choice=NAMED))
    [choice] = answer["choices"]
    assert (status, choice["finish_reason"], choice["message"]["content"]) == (200, "tool_calls", None)
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    [body] = bodies(site, 1)
    assert body["response_format"]["json_schema"]["schema"] == TOOL["function"]["parameters"]
    assert "weather" in str(body["messages"])
    assert not {"tools", "tool_choice"} & body.keys()


def test_required_call_names_its_function_itself_also_in_a_stream(site: Site) -> None:
    said = json.dumps({"name": "weather", "arguments": {"city": "Paris"}})[::-1]
    status, _, body = site.ask(said, tools=[TOOL], tool_choice="required", stream=True)
    [call] = [call for chunk in events(body) for one in chunk["choices"] for call in one["delta"].get("tool_calls", ())]
    assert (status, call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        200,
        "weather",
        {"city": "Paris"},
    )


def test_template_without_tools_refuses_what_it_would_ignore(site: Site) -> None:
    status, answer = post(site, "/v1/chat/completions", question("x", tools=[TOOL]))
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "unsupported", "tools")
    assert site.ask("x", tools=[TOOL], tool_choice="none")[0] == 200


def test_what_a_template_refuses_is_the_users_mistake_and_a_failure_of_the_engine_stays_one(site: Site) -> None:
    status, answer = post(site, "/v1/chat/completions", question("refuse"))
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "messages_refused", "messages")
    status, answer = post(site, "/v1/chat/completions", question("compute"))
    assert (status, answer["error"]["message"]) == (500, "Compute error.")


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 2}, {"n": 2, "stream": True}])
def test_engine_that_still_loads_is_one_to_try_again(site: Site, more: dict[str, Any]) -> None:
    status, headers, answer = site.ask("load", **more)
    assert (status, json.loads(answer)["error"]["code"], headers["retry-after"]) == (503, "engine_lost", "5")


@pytest.mark.parametrize(("model", "is_text"), [("toy", True), ("tools", False)])
def test_calls_of_before_are_shown_to_every_template(site: Site, model: str, is_text: bool) -> None:
    call = {"id": "7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "7", "content": [{"type": "text", "text": "rain"}]},
    ]
    assert post(site, "/v1/chat/completions", {"model": model, "messages": turns})[0] == 200
    [body] = bodies(site, 1)
    _, asked, answered = body["messages"]
    if is_text:
        assert asked == {"role": "assistant", "content": '{"name": "weather", "arguments": {"city":"Paris"}}'}
        assert answered == {"role": "user", "content": "Answer of the function: rain"}
    else:
        assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
        assert (answered["role"], answered["tool_call_id"]) == ("tool", "7")


def test_answers_of_several_tools_are_one_turn_where_the_template_knows_none(site: Site) -> None:
    calls = [
        {"id": number, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for number in ("7", "8")
    ]
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "7", "content": "rain"},
        {"role": "tool", "tool_call_id": "8", "content": "sun"},
        {"role": "user", "content": "and?"},
        {"role": "user", "content": "well?"},
    ]
    assert post(site, "/v1/chat/completions", {"model": "toy", "messages": turns})[0] == 200
    [body] = bodies(site, 1)
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user", "user"]
    answered = "Answer of the function: rain\n\nAnswer of the function: sun\n\nand?"
    assert [one["content"] for one in body["messages"][2:]] == [answered, "well?"]


def test_log_probabilities_are_asked_for_where_only_those_of_the_answer_are_wanted(site: Site) -> None:
    assert site.ask("x", logprobs=True)[0] == 200
    assert bodies(site, 1)[0]["top_logprobs"] == 1
    assert post(site, "/v1/completions", {"model": "toy", "prompt": "x", "logprobs": 0})[0] == 200
    assert bodies(site, 1)[0]["logprobs"] == 1


def test_instruction_of_a_call_joins_the_message_of_the_system(site: Site) -> None:
    said = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": "x"}]
    body = {"model": "toy", "messages": said, "tools": [TOOL], "tool_choice": NAMED}
    assert post(site, "/v1/chat/completions", body)[0] == 200
    [sent] = bodies(site, 1)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["messages"][0]["content"].startswith("Be brief.\n\nAnswer with the arguments of the function weather")
