"""An engine that is silent, as its users meet it: 504 for their request, a restart, and an answer to the next one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from appliance.clock import utc_now
from appliance.events import Event
from appliance.host.engine.end_request import EndListener, listen, request_end
from appliance.host.engine.process import start_engine
from appliance.host.engine.state import SERVING, EngineState
from appliance.host.site.api_keys import AccessStore
from appliance.serve.gateway.messages import EngineEvent, Plan, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.sharing import watchdog
from tests.appliance.serve.gateway.site import NOW, eventually, question
from tests.sim.engines import make_spec


@dataclass
class Silent:
    """A gateway whose engines are asked after a fifth of a second without anything."""

    gateway: Gateway
    client: TestClient
    key: str
    events: list[Event]
    ends: list[int]

    def ask(self, said: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        return self.client.post("/v1/chat/completions", json=question(said, **options), headers=headers)

    def reported(self) -> list[tuple[str, dict[str, object]]]:
        wanted = ("engine.silent", "engine.restarted")
        return [(event.kind, dict(event.fields)) for event in self.events if event.kind in wanted]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    monkeypatch.setattr(watchdog, "PROBE_S", 0.3)
    monkeypatch.setattr(watchdog, "YIELD_S", 0.2)
    events: list[Event] = []
    ends: list[int] = []
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        folder = Path(name)
        spec = make_spec(folder)
        store = AccessStore(folder / "access.db")
        key = store.grant("all", NOW)
        with start_engine(spec, folder, folder / "engine.log") as engine:
            engine.wait_ready(20)
            listener = EndListener(engine.socket, lambda: ends.append(1))
            model = PlannedModel("toy", str(engine.socket), 2, 512, spec.file.sha256, "")
            plan = Plan("toy 1.0.0", "0" * 64, "0" * 64, "0" * 64, str(folder / "access.db"), (model,))
            gateway = Gateway(plan, store, utc_now, events.append)
            gateway._backends["toy"].watchdog._silence_s = 0.2
            gateway.on_event(EngineEvent("toy", EngineState(SERVING, "", "E2", "netns")))
            with TestClient(gateway.application()) as client:
                yield Silent(gateway, client, key, events, ends)
            listener.close()


def test_piece_without_any_work_on_it_gets_504_and_its_kind_is_reported_without_its_text(
    silent: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    reply = silent.ask("hang", user="canary-19ff")
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "engine_silent")
    assert "retry-after" not in reply.headers
    kind = {"model": "toy", "route": "/v1/chat/completions", "size_class": "body up to 1 KiB, grammar none"}
    assert silent.reported() == [("engine.silent", kind)]
    assert "produced nothing for a request: /v1/chat/completions, body up to 1 KiB, grammar none" in caplog.text
    assert "canary" not in caplog.text + str(silent.events)
    assert (silent.ask("abc").status_code, silent.ends) == (200, [])


def test_schema_is_named_by_its_size(silent: Silent) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [f"canary {at}" for at in range(300)]}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert silent.ask("hang", response_format=form).status_code == 504
    assert silent.reported()[0][1]["size_class"] == "body up to 16 KiB, grammar up to 16 KiB"
    assert "canary" not in str(silent.events)


def test_engine_that_does_not_yield_is_ended_once(silent: Silent) -> None:
    assert silent.ask("block").status_code == 504
    assert eventually(lambda: silent.ends == [1])
    assert [kind for kind, _ in silent.reported()] == ["engine.silent", "engine.restarted"]


def test_unit_ends_its_engine_when_the_gateway_asks(tmp_path: Path) -> None:
    """The program beside the engine, as `become` starts it: it kills its parent, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="end-") as name:
        engine = Path(name) / "engine.sock"
        program = (
            "from pathlib import Path\n"
            "from appliance.host.engine import end_request\n"
            "from appliance.serve.unit_programs import engine\n"
            f"with end_request.listen(Path({str(engine)!r})) as listening:\n"
            f"    command = [{sys.executable!r}, '-c', 'import time; time.sleep(60)']\n"
            "    engine.become(command, {}, 0, None, listening.fileno())\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL) as process:
            try:
                assert eventually(lambda: request_end(engine))
                assert process.wait(10) == -9
            finally:
                process.kill()
        # With the engine, the program beside it has ended.
        assert eventually(lambda: not request_end(engine))


def test_request_for_an_engine_that_is_not_there_is_taken_by_nobody(tmp_path: Path) -> None:
    assert not request_end(tmp_path / "engine.sock")
    with listen(tmp_path / "engine.sock"):
        pass
    assert not request_end(tmp_path / "engine.sock")


def test_listener_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    ends: list[str] = []
    first = EndListener(tmp_path / "a.sock", lambda: ends.append("first"))
    second = EndListener(tmp_path / "a.sock", lambda: ends.append("second"))
    assert request_end(tmp_path / "a.sock")
    assert eventually(lambda: ends == ["second"])
    first.close()
    second.close()
    second.close()
