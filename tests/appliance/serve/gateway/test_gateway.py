"""The gateway as its users meet it: through a socket, with the OpenAI client, in front of engines that misbehave."""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import openai
import pytest

from appliance.host.engine.state import BYTES_DIFFER, RESTARTING, STOPPED, EngineState
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.requests.body import MAX_BODY_BYTES
from appliance.serve.upstream.gathered import AS_STREAM
from tests.appliance.serve.gateway.site import DIGESTS, Site, eventually, nested, opened, question
from tests.sim.engines import notes


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-")))
        yield stack.enter_context(opened(folder, {"toy": 2, "narrow": 1}))


def test_two_requests_get_two_answers_that_name_what_made_them(site: Site) -> None:
    answers = []
    for said in ("one question", "another"):
        raw = site.client().chat.completions.with_raw_response.create(
            model="toy", messages=[{"role": "user", "content": said}]
        )
        parsed = raw.parse()
        assert parsed.usage is not None
        assert parsed.usage.completion_tokens > 0
        answers.append(parsed.choices[0].message.content)
        made_by = {**DIGESTS, "model": site.models["toy"], "level": "E2", "isolation": "netns"}
        assert parsed.model_extra is not None
        assert parsed.model_extra["appliance"] == made_by
        assert {key: raw.headers[f"appliance-{key}"] for key in made_by} == made_by
    assert answers == ["noitseuq eno", "rehtona"]


def test_completions_reach_the_engine_under_the_same_path(site: Site) -> None:
    status, headers, body = site.call("POST", "/v1/completions", {"model": "toy", "prompt": "x"})
    assert (status, headers["appliance-model"]) == (200, site.models["toy"])
    assert notes(site.sockets)[-1]["path"] == "/v1/completions"
    assert json.loads(body)["appliance"]["engine"] == DIGESTS["engine"]


def test_a_stream_arrives_as_it_is_made(site: Site) -> None:
    began, arrivals, words = time.monotonic(), [], []
    stream = site.client().chat.completions.create(
        model="toy", messages=[{"role": "user", "content": "slow 8"}], stream=True
    )
    for chunk in stream:
        arrivals.append(time.monotonic() - began)
        words.append(chunk.choices[0].delta.content)
    assert "".join(word or "" for word in words) == "0 1 2 3 4 5 6 7 "
    assert arrivals[0] < arrivals[-1] - 0.2
    assert stream.response.headers["appliance-model"] == site.models["toy"]


@pytest.mark.parametrize("key", [None, "", "ak-wrong", "late", "revoked", "ak-000000000000-" + "A" * 43])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_without_a_valid_key_no_engine_is_reached_and_nobody_learns_why(site: Site, key: str | None, path: str) -> None:
    before = len(notes(site.sockets))
    status, headers, body = site.call("POST", path, question("x"), key)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    same = {"x_request_id": headers["x-request-id"]}
    assert body == site.call("POST", path, question("x"), "ak-other", **same)[2]
    assert len(notes(site.sockets)) == before
    assert site.call("GET", "/v1/models", key=key)[0] == 401


def test_an_unknown_model_is_never_replaced_by_another(site: Site) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        site.client().chat.completions.create(model="nothing", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"
    assert "narrow, toy" in caught.value.message or "toy, narrow" in caught.value.message


def test_name_with_an_adapter_is_reserved_and_never_the_model_before_the_at(site: Site) -> None:
    status, _, body = site.ask("x", "toy@legal")
    error = json.loads(body)["error"]
    assert (status, error["code"], error["param"]) == (404, "not_offered", "model")
    assert "adapter" in error["message"]


def test_a_key_uses_and_sees_only_its_own_models(site: Site) -> None:
    client = site.client("narrow")
    assert [model.id for model in client.models.list()] == ["narrow"]
    assert sorted(model.id for model in site.client().models.list()) == ["narrow", "toy"]
    assert client.models.retrieve("narrow").owned_by == "toy 1.0.0"
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.PermissionDeniedError):
        client.models.retrieve("toy")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nothing")
    assert "toy" not in caught.value.message


PARSER = {"parsers": [{"type": "sequence", "children": [0]}], "rules": {}, "root": 0}


def tool(parameters: dict[str, object], name: str = "f") -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def calls(arguments: str) -> dict[str, object]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"model": "toy", "messages": [{"role": "assistant", "tool_calls": [call]}]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"[" * 200_000, 400, "invalid_json"),
        (b'{"model": "toy", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, "invalid_json"),
        (
            b'{"model": "toy", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
            400,
            "invalid_json",
        ),
        ({"messages": []}, 400, "field_missing"),
        (question("x", id_slot=1), 400, "unknown_field"),
        # A few lines of it end an engine, or keep it busy for ever.
        (question("x", grammar="root ::= " + "(" * 50_000), 400, "unknown_field"),
        (question("x", chat_parser=PARSER), 400, "unknown_field"),
        (question("x", metadata=nested(40)), 400, "too_deep"),
        (calls("[" * 5_000), 400, "invalid_json"),
        (calls('{"a":' + "[" * 100 + "]" * 100 + "}"), 400, "too_deep"),
        (calls("[]"), 400, "invalid_field"),
        (question("x", tools=[tool({"pattern": "^((x{0,4}){0,4}){0,4}$"})]), 400, "pattern_refused"),
        (question("x", tools=[tool({}), tool({})]), 400, "invalid_field"),
        (question("x", tool_choice="required"), 400, "invalid_field"),
        (question("x" * (512 * 16 + 1)), 400, "context_length_exceeded"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "body_too_long"),
    ],
)
def test_body_outside_the_limits_is_refused_before_the_engine_gets_it(
    site: Site, body: object, status: int, code: str
) -> None:
    before = len(notes(site.sockets))
    found, _, answer = site.call("POST", "/v1/chat/completions", body)
    assert (found, json.loads(answer)["error"]["code"]) == (status, code)
    assert len(notes(site.sockets)) == before


def test_a_body_without_a_stated_length_is_cut_at_the_same_limit(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    blocks = iter([b" " * (1 << 20)] * ((MAX_BODY_BYTES >> 20) + 2))
    connection.request(
        "POST", "/v1/completions", blocks, {"authorization": f"Bearer {site.keys['all']}"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_engine_gets_the_body_and_no_header_of_the_user(site: Site) -> None:
    headers = {"x_conversation_id": "1", "x_forwarded_for": "192.0.2.1", "cookie": "a=b"}
    site.call("POST", "/v1/chat/completions", question("ä 😀", temperature=0.25), **headers)
    seen = notes(site.sockets)[-1]
    slot = {name: seen["body"].pop(name) for name in ("id_slot", "cache_prompt")}
    assert sorted(type(one).__name__ for one in slot.values()) == ["bool", "int"]
    assert seen["body"] == {**question("ä 😀", temperature=0.25), **AS_STREAM}
    assert set(seen["headers"]) <= {
        *("host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type")
    }


def test_an_error_of_the_engine_comes_through(site: Site) -> None:
    with pytest.raises(openai.BadRequestError, match="too long"):
        site.client().chat.completions.create(model="toy", messages=[{"role": "user", "content": "fail"}])


def test_full_queue_refuses_and_states_when_to_try_again(site: Site) -> None:
    asked = [site.begin("hang", "narrow") for _ in range(9)]
    try:
        assert eventually(lambda: site.gauge("waiting", "narrow") == 8)
        status, headers, body = site.ask("x", "narrow")
        assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(headers["retry-after"]) <= 120
        assert site.ask("x", "toy")[0] == 200
    finally:
        for connection in asked:
            connection.close()
    assert eventually(lambda: site.gauge("waiting", "narrow") == 0 == site.gauge("slots_taken", "narrow"))
    assert site.ask("x", "narrow")[0] == 200


def test_queue_is_first_come_first_served(site: Site) -> None:
    holding = site.begin("slow 12", "narrow")
    assert eventually(lambda: site.gauge("slots_taken", "narrow") == 1)

    def ask(said: str) -> None:
        assert site.ask(said, "narrow")[0] == 200

    def are_waiting(count: int) -> bool:
        return site.gauge("waiting", "narrow") == count

    threads = []
    for count, said in enumerate(("first", "second", "third"), 1):
        threads.append(threading.Thread(target=ask, args=(said,)))
        threads[-1].start()
        assert eventually(partial(are_waiting, count))
    for thread in threads:
        thread.join()
    holding.close()
    # By the engine's own notes: the order in which threads read their answers depends on the scheduler.
    assert site.asked("narrow")[-3:] == ["first", "second", "third"]


@pytest.mark.parametrize("said", ["slow 100", "hang"])
def test_the_engine_stops_working_for_a_user_who_leaves(site: Site, said: str) -> None:
    before = site.left().count(said)
    connection = site.begin(said)
    assert eventually(lambda: site.gauge("slots_taken", "toy") == 1)
    if said != "hang":
        assert connection.getresponse().read(20)
    connection.close()
    assert eventually(lambda: site.left().count(said) == before + 1)
    assert eventually(lambda: site.gauge("slots_taken", "toy") == 0)


def test_engine_that_dies_is_reported_in_the_stream_or_by_503(tmp_path: Path) -> None:
    with opened(tmp_path, {"toy": 2, "next": 2}) as site:
        status, _, body = site.ask("die late", stream=True)
        assert status == 200
        assert b"engine_lost" in body
        assert b"[DONE]" not in body
        status, headers, body = site.ask("die", "next")
        assert (status, headers["retry-after"]) == (503, "5")
        assert json.loads(body)["error"]["code"] == "engine_lost"
        assert site.ask("x", "toy")[0] == 503


def test_events_of_the_supervisor_decide_what_is_served(tmp_path: Path) -> None:
    with opened(tmp_path, {"toy": 1, "narrow": 1}) as site:
        site.process.send(EngineEvent("toy", EngineState(STOPPED, BYTES_DIFFER)))
        assert eventually(lambda: site.ask("x")[0] == 503)
        assert json.loads(site.ask("x")[2])["error"]["code"] == "model_stopped"
        assert site.ask("x", "narrow")[0] == 200
        assert site.call("GET", "/readyz", key=None)[0] == 200
        site.process.send(EngineEvent("narrow", EngineState(RESTARTING)))
        assert eventually(lambda: site.call("GET", "/readyz", key=None)[0] == 503)
        assert json.loads(site.ask("x", "narrow")[2])["error"]["code"] == "model_restarting"
        assert [site.call("GET", path, key=None)[::2] for path in ("/livez", "/health")] == [(200, b"alive\n")] * 2


def test_new_gateway_gets_every_state_that_the_old_one_had(tmp_path: Path) -> None:
    with opened(tmp_path, {"toy": 1}) as site:
        site.process.stop()
        site.process.start()
        assert site.ask("x")[0] == 200


def test_readiness_and_metrics_need_no_key_and_name_nobody(site: Site) -> None:
    status, _, body = site.call("GET", "/readyz", key=None)
    assert (status, json.loads(body)["ready"]) == (200, True)
    assert {"name": "toy", "state": "serving", "level": "E2", "isolation": "netns"} in json.loads(body)["models"]
    site.ask("x")
    figures = site.call("GET", "/metrics", key=None)[2].decode()
    assert 'appliance_requests_total{model="toy",route="/v1/chat/completions",status="200"}' in figures
    assert 'appliance_engine_up{isolation="netns",level="E2",model="toy"} 1' in figures
    for line in figures.splitlines():
        assert re.fullmatch(
            r"# TYPE \w+ (counter|gauge|histogram)|# HELP \w+ \S.*|\w+({\w+=\"[^\"]*\"(,\w+=\"[^\"]*\")*})? [0-9.e+-]+",
            line,
        )
    for key in site.keys.values():
        assert key.encode() not in body + figures.encode()


def test_every_reply_has_the_common_headers_and_hides_what_serves(site: Site) -> None:
    for method, path in (("GET", "/"), ("GET", "/nothing"), ("DELETE", "/v1/models"), ("GET", "/v1/models/")):
        _, headers, _ = site.call(method, path)
        assert headers["appliance-release"] == DIGESTS["release"]
        assert headers["appliance-policy"] == DIGESTS["policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert not {"server", "access-control-allow-origin", "location"} & set(headers)


def test_unknown_paths_and_methods_answer_in_the_shape_of_an_error(site: Site) -> None:
    status, _, body = site.call("GET", "/v1/nothing")
    assert (status, json.loads(body)["error"]["code"]) == (404, "route_not_found")
    status, headers, body = site.call("GET", "/v1/chat/completions")
    assert (status, json.loads(body)["error"]["code"], headers["allow"]) == (405, "method_not_allowed", "POST")
    for path in (
        "/slots",
        "/props",
        "/lora-adapters",
        "/v1/chat/completions/control",
        "/docs",
        "/page.html",
    ):
        assert site.call("POST", path, {})[0] == 404


def test_gateway_logs_no_warning(site: Site) -> None:
    assert site.log.read_text() == ""
