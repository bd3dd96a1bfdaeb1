"""T141: a body of another dialect takes what a chat refuses past the checks: a file to fetch, a field of the engine."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.serve.gateway import admission
from appliance.serve.observation.metrics import Metrics
from appliance.serve.requests.chat import MAX_CALLS, ChatRequest
from appliance.serve.requests.paths import CHAT, MESSAGES, RESPONSES
from appliance.serve.requests.refusal import Refusal
from appliance.serve.sharing.residence import Stay
from tests.attacks.harness import guard_off, row
from tests.attacks.test_t79_engine_fields import CALLER

ROW = row(141)
SAID = [{"role": "user", "content": "x"}]
MANY = [{"type": "tool_use", "id": "1", "name": "f", "input": {}}] * 120
PAST = [*SAID, {"role": "assistant", "content": MANY}, {"role": "assistant", "content": MANY}]
URL = "http://169.254.169.254/latest"
PICTURE = {"type": "image", "source": {"type": "url", "url": URL}}


def sent(path: str, **fields: Any) -> dict[str, Any]:
    """The body that an engine would get."""

    async def enter(_owner: str) -> Stay:
        return Stay()

    model = SimpleNamespace(context=1 << 15)
    backend: Any = SimpleNamespace(
        name="toy", model=model, refusal=lambda _: None, made_by=dict, enter=enter, has_tools=has_tools
    )
    data = json.dumps({"model": "toy", **fields}).encode()
    relay = asyncio.run(admission.admit(path, data, CALLER, lambda _: backend, Metrics(list)))
    return dict(json.loads(relay._work.bodies[0]))


async def has_tools() -> bool:
    return True


def test_unattacked_a_conversation_is_the_same_chat_in_every_dialect() -> None:
    chat = sent(CHAT, messages=SAID, max_tokens=5)
    assert sent(RESPONSES, input="x", max_output_tokens=5) == chat
    assert sent(MESSAGES, messages=SAID, max_tokens=5) == chat


@pytest.mark.parametrize(
    ("path", "fields", "code"),
    [
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": URL}]}]}, "unsupported"),
        (RESPONSES, {"input": "x", "previous_response_id": "resp_of_somebody"}, "unsupported"),
        (RESPONSES, {"input": "x", "tools": [{"type": "mcp", "server_url": URL}]}, "unsupported"),
        (RESPONSES, {"input": "x", "grammar": "root ::= root"}, "unknown_field"),
        (RESPONSES, {"input": [{"role": "user", "content": "x", "id_slot": 1}]}, "unknown_field"),
        (MESSAGES, {"max_tokens": 5, "messages": [{"role": "user", "content": [PICTURE]}]}, "unsupported"),
        (MESSAGES, {"max_tokens": 5, "messages": SAID, "mcp_servers": [{"type": "url", "url": URL}]}, "unsupported"),
        (MESSAGES, {"max_tokens": 5, "messages": SAID, "container": "other"}, "unsupported"),
        (MESSAGES, {"max_tokens": 5, "messages": SAID, "json_schema": {}}, "unknown_field"),
        # Each turn is within the limit of calls. As one message of a chat, they are not.
        (MESSAGES, {"max_tokens": 5, "messages": PAST}, "invalid_field"),
    ],
)
def test_attacked_by_what_a_chat_does_not_take(path: str, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        sent(path, **fields)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert URL not in caught.value.message


def test_unguarded_a_message_has_more_calls_than_a_chat_may_have() -> None:
    def take(fields: dict[str, Any], _form: object) -> ChatRequest:
        user, answer = fields["messages"]
        calls = answer["tool_calls"]
        short = ChatRequest.model_validate({**fields, "messages": [user, {**answer, "tool_calls": calls[:1]}]})
        message: Any = short.messages[1]
        message.tool_calls.extend(message.tool_calls * (len(calls) - 1))
        return short

    with guard_off(ROW.guard, take):
        message = sent(MESSAGES, max_tokens=5, messages=PAST)["messages"][1]
    assert len(message["tool_calls"]) == 2 * len(MANY) > MAX_CALLS
