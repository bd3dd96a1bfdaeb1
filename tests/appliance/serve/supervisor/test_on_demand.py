"""A model that is loaded on demand has an engine while it is used, and none while it is not."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from appliance.host.activation.health import Health
from appliance.host.engine.load_mark import mark_path
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import SERVING, UNLOADED, read_state
from appliance.host.site.api_keys import AccessStore
from appliance.serve.supervisor import run_dir
from appliance.serve.supervisor import service as service_module
from appliance.serve.supervisor.engine_states import read_engine_states, stopped_engines
from appliance.serve.supervisor.launch_plan import Launch, ServedModel, SharedMemory
from tests.appliance.serve.supervisor.test_service import Running, eventually, running
from tests.toy import NOW


def on_demand(served: ServedModel) -> ServedModel:
    """One that is unloaded only to make room; `pinned` is always loaded."""
    return served if served.model.name == "pinned" else replace(served, keep_alive=1, is_on_demand=True)


def one_at_a_time(launch: Launch) -> SharedMemory:
    return SharedMemory(1, {served.model.name: 1 for served in launch.models if served.is_on_demand})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(service_module, "shared_memory", one_at_a_time)
    with running(tmp_path, monkeypatch, ("pinned", "one", "two"), on_demand) as found:
        yield found


def states(run: Running) -> dict[str, str]:
    return {model["name"]: model["state"] for model in run.readyz()["models"]}


def key_of(run: Running) -> str:
    return AccessStore(run.release.prefix.access).grant("all", NOW)


def stream(run: Running, key: str, model: str, read: list[bytes]) -> None:
    """Ask for an answer of many tokens, and read it to its end."""
    body = {"model": model, "messages": [{"role": "user", "content": "slow 40"}], "stream": True}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    chat = Request(f"{run.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with build_opener(ProxyHandler({})).open(chat, timeout=20) as response:
        read.extend(response)


def test_only_the_pinned_model_is_loaded_at_the_start_and_all_count_as_ready(run: Running) -> None:
    assert eventually(lambda: states(run) == {"pinned": SERVING, "one": UNLOADED, "two": UNLOADED})
    assert run.service.health() is Health.READY
    with run_dir.hold(run.release.prefix):
        written = read_state(socket_path(run.service.sockets, "one"))
        assert written is not None
        assert (written.status, written.pid) == (UNLOADED, os.getpid())
        assert stopped_engines(run.release, read_engine_states(run.release)) == []


def test_model_that_is_asked_for_is_verified_loaded_and_answers(run: Running) -> None:
    assert run.ask(key_of(run), "one", "hello") == (200, "")
    assert states(run)["one"] == SERVING
    assert [event.subject for event in run.events if event.what == "ready"] == ["pinned", "one"]
    mark_path(run.service.sockets, "one").unlink()
    assert eventually(lambda: states(run)["one"] == UNLOADED)
    assert run.service.keepers[1].engine is None
    assert not socket_path(run.service.sockets, "one").exists()


def test_crash_of_a_loaded_model_is_a_crash_and_it_is_loaded_again(run: Running) -> None:
    key = key_of(run)
    assert run.ask(key, "one", "hello") == (200, "")
    engine = run.service.keepers[1].engine
    assert engine is not None
    assert engine.child.program_pid is not None
    os.kill(engine.child.program_pid, signal.SIGKILL)
    assert eventually(run.has_ended("one", 1))
    assert eventually(lambda: run.ask(key, "one", "hello") == (200, ""))


def test_changed_model_is_an_incident_when_it_is_loaded_and_the_others_serve(run: Running) -> None:
    key = key_of(run)
    keeper = run.service.keepers[1]
    store = keeper.served.spec.store
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    assert run.ask(key, "one", "hello") == (503, "model_stopped")
    assert keeper.is_stopped
    assert run.ask(key, "pinned", "hello") == (200, "")


def test_other_model_waits_for_the_end_of_a_stream_and_never_cuts_it(run: Running) -> None:
    """The memory holds one of the two."""
    key, read = key_of(run), list[bytes]()
    reading = threading.Thread(target=stream, args=(run, key, "one", read))
    reading.start()
    assert eventually(lambda: states(run)["one"] == SERVING)
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(run.ask(key, "two", "hello", 30)))
    asking.start()
    reading.join()
    assert read[-2:] == [b"data: [DONE]\n", b"\n"]
    assert (states(run)["one"], states(run)["two"]) == (SERVING, UNLOADED)
    run.service.gateway.stop()  # what waits for a model is asked to come again
    asking.join()
    assert answers == [(503, "switching")]
