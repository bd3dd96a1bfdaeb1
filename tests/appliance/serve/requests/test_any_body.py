"""Whatever a user sends, an engine gets the listed fields alone, with bounded values (threat T79).

`BODIES` is how many are tried; `make soak` tries 100 000.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.serve.dialects.forms import REQUEST_MODELS, read_request
from appliance.serve.requests.json_text import check_shape, parse_json
from appliance.serve.requests.paths import (
    CHAT,
    CHAT_TOKENS,
    COMPLETIONS,
    DETOKENIZE,
    EMBEDDINGS,
    RERANKINGS,
    TOKENIZE,
)
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.schema_pattern import write_pattern
from appliance.serve.requests.work import Work, check_length, plan_work
from tests.appliance.serve.gateway.site import opened
from tests.appliance.serve.requests.bodies import make_body
from tests.sim.engines import notes

EACH = 20
BODIES = int(os.environ.get("BODIES", "10000"))
CONTEXT = 512
_SAMPLING = (
    *("model", "temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
    *("frequency_penalty", "presence_penalty", "logit_bias", "max_tokens", "stop", "seed", "stream", "stream_options"),
)
FIELDS = {
    CHAT: {
        *_SAMPLING,
        *("messages", "response_format", "logprobs", "top_logprobs", "reasoning_effort", "chat_template_kwargs"),
        *("tools", "tool_choice", "parallel_tool_calls"),
    },
    COMPLETIONS: {*_SAMPLING, "prompt", "logprobs"},
    EMBEDDINGS: {"model", "input", "encoding_format"},
    RERANKINGS: {"model", "query", "documents"},
    TOKENIZE: {"model", "content", "add_special", "parse_special", "with_pieces"},
    DETOKENIZE: {"model", "tokens"},
}
FIELDS[CHAT_TOKENS] = FIELDS[CHAT]
MESSAGE = {"role", "content", "name", "tool_call_id", "reasoning_content", "tool_calls"}


def refuse_constant(name: str) -> float:
    raise AssertionError(name)


def check_engine_body(path: str, data: bytes) -> None:
    """Check what an engine would get."""
    body = json.loads(data.decode("utf-8"), parse_constant=refuse_constant)
    assert len(data) < 64_000
    assert body.keys() <= FIELDS[path]
    assert not any(value is None for value in body.values())
    # A call that a schema asks for has its schema a few levels deeper.
    check_shape(body if "response_format" not in body else body["messages"])
    for message in body.get("messages", ()):
        assert message.keys() <= MESSAGE
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert isinstance(message.get("content", ""), str) or all(
            part.keys() == {"type", "text"} and part["type"] == "text" for part in message["content"]
        )
        for call in message.get("tool_calls", ()):
            assert isinstance(parse_json(call["function"]["arguments"]), dict)
    for tool in body.get("tools", ()):
        assert tool["function"].keys() == {"name", "description", "parameters"}
    check_patterns(body.get("response_format"))
    assert body.get("max_tokens", 1) in range(1, 1 << 31)
    assert body.get("tool_choice", "auto") in ("auto", "none", "required")


def check_patterns(value: Any) -> None:
    """Every pattern in the schemas of these bodies is one that a grammar has."""
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in named:
        assert name != "pattern" or not isinstance(inner, str) or write_pattern(inner) is not None
        check_patterns(inner)


def check_field(route: str, body: dict[str, Any], refused: Refusal) -> None:
    """A refusal names a field that the client sent, or could have sent."""
    field = re.match(r"[^.\[]*", refused.param or "")
    assert field is not None
    names = REQUEST_MODELS[route].model_fields.keys() | {name.split(".")[0] for name in body} | {""}
    assert field[0] in names, refused.param


def plan(route: str, body: dict[str, Any], *, has_tools: bool) -> Work:
    """What the gateway makes of a body."""
    data = json.dumps(body).encode("utf-8", "replace")
    request, form = read_request(route, parse_json(data))
    try:
        check_length(request, CONTEXT)
        return form.adapt(plan_work(request, has_tools=has_tools))
    except Refusal as refused:
        raise form.refused(refused) from None


@pytest.mark.ci
def test_no_body_reaches_an_engine_with_a_field_outside_the_list() -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=BODIES // EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 1 << 64), st.booleans())
    def send(seed: int, has_tools: bool) -> None:
        random = Random(seed)
        for _ in range(EACH):
            route, body = make_body(random)
            try:
                work = plan(route, body, has_tools=has_tools)
            except Refusal as refused:
                outcomes[refused.code if refused.status == 400 else "other"] += 1
                check_field(route, body, refused)
                continue
            outcomes["passed"] += 1
            assert 1 <= len(work.bodies) <= 2048 * 8
            for data in work.bodies:
                check_engine_body(work.path, data)

    send()
    assert outcomes.total() >= BODIES * 0.9
    assert "other" not in outcomes
    # The bodies are neither all good nor all bad.
    assert outcomes["passed"] > BODIES / 20
    assert {"unknown_field", "unsupported", "invalid_field", "field_missing"} <= outcomes.keys()


@pytest.mark.ci
def test_engine_that_stands_in_gets_nothing_else_through_the_gateway() -> None:
    random = Random(13)
    slots = {"toy": 2, "tools": 2, "embeds": 2, "ranks": 2}
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), slots) as site:
        statuses: Counter[int] = Counter()
        for _ in range(200):
            route, body = make_body(random)
            if body.get("model") == "toy":
                others = {EMBEDDINGS: "embeds", RERANKINGS: "ranks"}
                body["model"] = others.get(route) or random.choice(("toy", "tools"))
            status, _, _ = site.call("POST", route, json.dumps(body).encode())
            statuses[status] += 1
        asked = [note for note in notes(site.sockets) if "body" in note]
        for note in asked:
            # The gateway itself chooses the slot, and whether what the slot has read is used.
            assert note["body"].pop("id_slot", 0) in (0, 1)
            assert note["body"].pop("cache_prompt", False) in (False, True)
            # A whole answer is gathered from a stream that shows how much of the prompt is read.
            assert note["body"].pop("return_progress", True) is True
            check_engine_body(note["path"], json.dumps(note["body"]).encode())
            assert note["headers"].keys() == {"host", "content-type", "content-length", "accept-encoding", "connection"}
        assert len(asked) > 20
        assert statuses.keys() <= {200, 400, 404}
