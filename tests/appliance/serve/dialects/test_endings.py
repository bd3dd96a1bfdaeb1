"""Where a stream of another dialect cannot go on, it ends with an error in its own form."""

from __future__ import annotations

import http.client
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.host.engine.state import RESTARTING, SERVING, EngineState
from appliance.host.site.api_keys import AccessStore
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.requests.paths import MESSAGES, RESPONSES
from tests.appliance.serve.gateway.site import NOW, Site, eventually, opened
from tests.sim.engines import notes

DELTAS = {MESSAGES: "content_block_delta", RESPONSES: "response.output_text.delta"}
ENDS = {MESSAGES: ["error"], RESPONSES: ["error", "response.failed"]}
each_route = pytest.mark.parametrize("route", [MESSAGES, RESPONSES])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    slots = {"toy": 2, "dies": 1, "dies-too": 1}
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), slots) as made:
        yield made


def asked(route: str, said: str, model: str = "toy", **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, **more}
    if route == RESPONSES:
        return {**body, "input": said}
    return {**body, "max_tokens": 9, "messages": [{"role": "user", "content": said}]}


@contextmanager
def streaming(site: Site, route: str, said: str, model: str, key: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        connection.request("POST", route, json.dumps(asked(route, said, model, stream=True)), {"x-api-key": key})
        yield connection.getresponse()
    finally:
        connection.close()


def read_events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def code_of(event: dict[str, Any]) -> str:
    return str(event["code"] if "code" in event else event["error"]["code"])


@each_route
def test_engine_that_dies_in_the_middle(site: Site, route: str) -> None:
    model = "dies" if route == MESSAGES else "dies-too"
    with streaming(site, route, "die late", model, site.keys["all"]) as response:
        found = list(read_events(response))
    assert response.status == 200
    kinds = [event["type"] for event in found]
    assert DELTAS[route] in kinds
    assert kinds[-len(ENDS[route]) :] == ENDS[route]
    assert code_of(found[kinds.index("error")]) == "engine_lost"


@each_route
def test_key_that_is_revoked_in_the_middle(site: Site, route: str) -> None:
    store = AccessStore(site.sockets / "access.db")
    key = store.grant(f"temp{route.replace('/', '-')}", NOW)
    with streaming(site, route, "slow 400", "toy", key) as response:
        events = read_events(response)
        assert next(event for event in events if event["type"] == DELTAS[route])
        store.revoke(f"temp{route.replace('/', '-')}", NOW)
        kinds = [event["type"] for event in events]
    assert kinds[-len(ENDS[route]) :] == ENDS[route]
    assert eventually(lambda: "slow 400" in site.left())
    status, _, body = site.call("POST", route, asked(route, "x"), key)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@each_route
def test_model_that_does_not_serve_refuses_in_the_form_of_its_client(site: Site, route: str) -> None:
    before = len(notes(site.sockets))
    site.process.send(EngineEvent("toy", EngineState(RESTARTING, "", "E2", "netns")))
    try:
        assert eventually(lambda: site.call("POST", route, asked(route, "x"))[0] == 503)
        _, headers, body = site.call("POST", route, asked(route, "x", stream=True))
        answer = json.loads(body)
        assert (headers["retry-after"], answer["error"]["code"]) == ("5", "model_restarting")
        assert answer.get("type") == ("error" if route == MESSAGES else None)
        assert len(notes(site.sockets)) <= before + 1
    finally:
        site.process.send(EngineEvent("toy", EngineState(SERVING, "", "E2", "netns")))
        assert eventually(lambda: site.call("POST", route, asked(route, "x"))[0] == 200)
