"""T79: a field of a request reaches a parser of the engine that nobody asked for, and ends it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.host.site.api_keys import Key
from appliance.serve.callers.caller import Caller
from appliance.serve.gateway import admission
from appliance.serve.observation.metrics import Metrics
from appliance.serve.requests.paths import CHAT, COMPLETIONS, EMBEDDINGS
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import Work
from appliance.serve.sharing.residence import Stay
from tests.attacks.harness import guard_off, row

ROW = row(79)
PARSER = {"parsers": [{"type": "sequence", "children": [0]}], "rules": {}, "root": 0}
CALLER = Caller(Key("ann", None, None))
SAID = {"messages": [{"role": "user", "content": "x"}]}


def sent(path: str, **fields: Any) -> dict[str, Any]:
    """The body that an engine would get."""
    model = SimpleNamespace(context=512)

    async def enter(_owner: str) -> Stay:
        return Stay()

    backend: Any = SimpleNamespace(name="toy", model=model, refusal=lambda _: None, made_by=dict, enter=enter)
    data = json.dumps({"model": "toy", **fields}).encode()
    relay = asyncio.run(admission.admit(path, data, CALLER, lambda _: backend, Metrics(list)))
    return dict(json.loads(relay._work.bodies[0]))


def test_unattacked_what_openai_describes_reaches_the_engine() -> None:
    assert sent(COMPLETIONS, prompt="x", temperature=1, user="u") == {"model": "toy", "prompt": "x", "temperature": 1}
    assert sent(CHAT, **SAID, seed=3)["seed"] == 3
    assert sent(EMBEDDINGS, input="x")["input"] == "x"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (COMPLETIONS, {"prompt": "x", "chat_parser": PARSER}),
        (COMPLETIONS, {"prompt": "x", "grammar": "root ::= root"}),
        (CHAT, {**SAID, "id_slot": 0}),
        (CHAT, {**SAID, "lora": [{"id": 0, "scale": 1}]}),
        (CHAT, {**SAID, "json_schema": {}}),
        (EMBEDDINGS, {"input": "x", "content": ["x"] * 3000}),
    ],
)
def test_attacked_by_a_field_of_the_engine(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        sent(path, **fields)
    assert (caught.value.status, caught.value.code) == (400, "unknown_field")
    assert caught.value.param in fields


def test_attacked_by_a_field_of_the_template_that_is_the_engines() -> None:
    with pytest.raises(Refusal) as caught:
        sent(CHAT, **SAID, chat_template_kwargs={"messages": "x"})
    assert (caught.value.code, caught.value.param) == ("unsupported", "chat_template_kwargs.messages")


def test_unguarded_the_body_of_the_user_reaches_the_engine() -> None:
    fields = {"prompt": "x", "chat_parser": PARSER}
    raw = json.dumps({"model": "toy", **fields}).encode()
    checked = SimpleNamespace(model="toy")
    with (
        guard_off(ROW.guard, lambda *_, **__: Work(COMPLETIONS, (raw,))),
        guard_off("appliance.serve.dialects.forms.parse_request", lambda *_: checked),
        guard_off("appliance.serve.gateway.admission.check_length", lambda *_: None),
    ):
        assert sent(COMPLETIONS, **fields)["chat_parser"] == PARSER
