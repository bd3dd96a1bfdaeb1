"""What checks requests is loaded beside the start, and no request has to come for it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from appliance.host.site.api_keys import AccessStore, Key
from appliance.serve.callers.caller import Caller
from appliance.serve.gateway import admission, routes
from appliance.serve.gateway.backend import Backend
from appliance.serve.gateway.messages import Plan, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.listening.draining import Ending
from appliance.serve.observation.metrics import Metrics
from appliance.serve.requests.refusal import Refusal
from appliance.serve.upstream.connection import LostError
from tests.appliance.serve.gateway.site import eventually
from tests.appliance.serve.upstream.test_connection import engine, run
from tests.toy import NOW


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    access = tmp_path / "access.db"
    return Gateway(Plan("toy 1.0.0", "0", "0", "0", str(access), ()), AccessStore(access), lambda: NOW)


def test_checks_are_loaded_after_the_start_and_before_the_first_request(gateway: Gateway) -> None:
    assert gateway._admit is None
    with TestClient(gateway.application()) as client:
        assert client.get("/livez").status_code == 200
        assert eventually(lambda: gateway._admit is not None)


def test_request_that_comes_before_they_are_loaded_waits_for_them(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = AccessStore(tmp_path / "access.db").grant("ann", NOW)
    loaded = []
    load = routes._import_admission
    monkeypatch.setattr(routes, "_import_admission", lambda: loaded.append(1) or load())  # type: ignore[func-returns-value]
    reply = TestClient(gateway.application()).post(
        "/v1/embeddings", json={"model": "x", "input": "y"}, headers={"authorization": f"Bearer {key}"}
    )
    assert (reply.status_code, reply.json()["error"]["code"], loaded) == (404, "model_not_found", [1])


def test_engine_that_still_loads_does_not_decide_that_its_template_has_no_tools() -> None:
    def reply(status: str, body: bytes) -> bytes:
        return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
            status.encode(),
            len(body),
            body,
        )

    replies = iter(
        [
            reply("503 Service Unavailable", b'{"error": {"message": "Loading model", "code": 503}}'),
            reply("200 OK", b'{"chat_template_caps": {"supports_tools": true}}'),
        ]
    )

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(replies))
        await writer.drain()

    async def work() -> None:
        with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
            model = PlannedModel("toy", f"{folder}/engine.sock", 1, 4096, "0", "0")
            backend = Backend(Plan("toy 1.0.0", "0", "0", "0", "", (model,)), model, Ending())
            async with engine(model.socket, script):
                with pytest.raises(LostError):
                    await backend.has_tools()
                assert await backend.has_tools()

    run(work())


def test_large_body_is_checked_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    def parse(_route: str, _body: object) -> None:
        assert going_on.wait(10)
        raise Refusal(400, "seen", "seen")

    monkeypatch.setattr(admission, "read_request", parse)

    def find(_name: str) -> Backend:
        raise AssertionError

    async def work() -> None:
        metrics, caller = Metrics(list), Caller(Key("ann", None, None))
        data = b'{"prompt": "%s"}' % (b"x" * admission.LARGE_BYTES)
        checks = [
            asyncio.create_task(admission.admit("/v1/completions", data, caller, find, metrics)) for _ in range(2)
        ]
        await asyncio.sleep(0.01)
        going_on.set()
        found = await asyncio.gather(*checks, return_exceptions=True)
        assert [type(one) for one in found] == [Refusal, Refusal]

    run(work())
