"""A model whose disk gives no signed bytes is stopped, and stays so until an install has repaired it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.engine.state import LEVEL_TOO_LOW, EngineState, read_state
from appliance.host.models.incident import BUS_ERROR, BYTES, WORDS, clear_incidents, read_incident
from appliance.host.site.api_keys import AccessStore
from appliance.host.tls.local_connection import format_url
from appliance.serve.supervisor import listener, run_dir
from appliance.serve.supervisor.engine_states import incident_errors, read_engine_states, stopped_engines
from appliance.serve.supervisor.launch_plan import Launch, ServedModel, read_launch
from appliance.serve.supervisor.scrubbing import scrub_release
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import ServiceEvent
from bundles.progress import ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DriftError
from tests.appliance.serve.supervisor.test_service import Running, eventually, run
from tests.sim.releases import install_toy
from tests.toy import NOW

__all__ = ["run"]


def file_of(running: Running) -> Digest:
    return running.service.keepers[0].served.spec.file.sha256


def with_two_models(launch: Launch) -> Launch:
    """Two models, each with a file of its own name and digest."""
    first = launch.models[0]
    file = replace(first.spec.file, sha256=sha256(b"another file"))
    second = ServedModel(replace(first.model, name="other"), replace(first.spec, name="other", file=file))
    return replace(launch, models=(first, second))


def start_two(folder: Path, stack: ExitStack) -> Running:
    release = install_toy(folder)
    events: list[ServiceEvent] = []
    listening = stack.enter_context(listener.bind("127.0.0.1", 0))
    sockets = stack.enter_context(run_dir.sockets(release.prefix))
    service = Service(with_two_models(read_launch(release, 1)), listening, sockets, lambda: None, events.append)
    stack.callback(service.stop)
    service.start_engines(ignore)
    listener.listen(listening)
    service.gateway.start()
    return Running(release, service, format_url(*listening.getsockname()[:2], is_tls=False), events)


def test_engine_that_the_kernel_ended_by_a_bus_error_is_not_started_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = start_two(tmp_path, stack)
        key = AccessStore(running.release.prefix.access).grant("ann", NOW)
        os.kill(running.engine_pid(), signal.SIGBUS)
        assert eventually(lambda: running.ask(key, "toy", "x") == (503, "model_stopped"))
        assert running.what() == ["ready", "ready", "incident"]
        assert running.state() == EngineState("stopped", WORDS[BUS_ERROR])
        found = read_incident(running.release.prefix, file_of(running), "toy")
        assert found is not None
        assert found.cause == BUS_ERROR
        # The others serve on, and the host says which one is stopped, and why.
        assert running.ask(key, "other", "x")[0] == 200
        assert running.ready() == 200
        models = {model["name"]: model for model in running.readyz()["models"]}
        assert (models["toy"]["state"], models["toy"]["reason"]) == ("stopped", WORDS[BUS_ERROR])
        assert models["other"]["state"] == "serving"
        running.service._check_keepers()


def test_status_names_the_incident_whether_or_not_anything_serves(run: Running) -> None:
    os.kill(run.engine_pid(), signal.SIGBUS)
    assert eventually(lambda: run.what() == ["ready", "incident"])
    with run_dir.hold(run.release.prefix):
        states = read_engine_states(run.release)
        [error] = stopped_engines(run.release, states)
        assert (error.exit_code, error.found) == (9, WORDS[BUS_ERROR])
        assert "appliance install" in error.hint
        assert incident_errors(run.release, states) == []
    [error] = incident_errors(run.release, {})
    assert (error.code, error.subject, error.exit_code) == ("model.incident", "toy", 9)


def test_model_with_an_incident_is_not_started_and_the_others_are(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        first = start_two(tmp_path, stack)
        os.kill(first.engine_pid(), signal.SIGBUS)
        assert eventually(lambda: first.what() == ["ready", "ready", "incident"])
        first.service.stop()
        first.events.clear()
        again = Service(
            first.service.launch,
            first.service.gateway._listening,
            first.service.sockets,
            lambda: None,
            first.events.append,
        )
        stack.callback(again.stop)
        again.start_engines(ignore)
        assert [(event.what, event.subject) for event in first.events] == [("incident", "toy"), ("ready", "other")]
        assert read_state(again.keepers[0]._socket) == EngineState("stopped", WORDS[BUS_ERROR])


def test_start_is_refused_where_no_model_is_left_and_works_once_an_install_has_cleared_it(run: Running) -> None:
    os.kill(run.engine_pid(), signal.SIGBUS)
    with pytest.raises(DriftError):
        run.service.wait()
    with pytest.raises(DriftError) as caught:
        run.service.keepers[0].start()
    assert caught.value.code == "model.incident"
    assert clear_incidents(run.release.prefix, [file_of(run)]) == (file_of(run),)
    run.service.keepers[0].start()
    run.service.keepers[0].wait_ready()
    assert run.service.keepers[0].is_ready


def test_scrub_stops_a_model_that_serves_from_memory(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine of the toy is a script, so its process shows the interpreter.
    monkeypatch.setattr("appliance.serve.supervisor.scrubbing.PROGRAM", "x")
    monkeypatch.setattr("appliance.serve.supervisor.scrubbing.check_engine_files", lambda _release: None)
    monkeypatch.setattr(
        "appliance.serve.supervisor.scrubbing.find_engine_socket", lambda *_: run.service.keepers[0]._socket
    )
    real = os.readlink
    monkeypatch.setattr(
        os, "readlink", lambda path: str(run.release.runtime / "x") if str(path).endswith("/exe") else real(path)
    )
    store = run.service.keepers[0].served.spec.store
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    assert run.ready() == 200
    waiting = threading.Thread(target=run.wait, daemon=True)
    waiting.start()
    report = scrub_release(run.release, ["toy"], lambda: NOW, lambda _event: None)
    assert [error.exit_code for error in report.errors()] == [9]
    assert eventually(lambda: run.what() == ["ready", "incident"])
    assert run.state() == EngineState("stopped", WORDS[BYTES])
    waiting.join(5)
    assert isinstance(run.service.keepers[0].error, ApplianceError)


def test_engine_that_no_longer_gets_its_level_is_stopped_with_that_reason(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = run.service.keepers[0]
    keeper.served = replace(keeper.served, spec=replace(keeper.served.spec, min_level="E4"))
    os.kill(run.engine_pid(), signal.SIGKILL)
    assert eventually(lambda: run.what() == ["ready", "ended", "given-up"])
    assert run.state() == EngineState("stopped", LEVEL_TOO_LOW)
