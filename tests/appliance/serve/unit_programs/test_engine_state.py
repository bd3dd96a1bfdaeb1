"""What users and operators see of an engine that systemd runs: above all, that it was stopped, and why."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Template
from starlette.testclient import TestClient

from appliance.engine_program import stack_bytes
from appliance.host.activation import systemd_services
from appliance.host.activation.health import Health
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.engine.client import EngineClient
from appliance.host.engine.load_mark import is_marked, set_mark
from appliance.host.engine.process import start_engine
from appliance.host.engine.state import EngineState, read_state, write_state
from appliance.host.layout.unit_files import engine_socket, load_mark
from appliance.host.release.release import Release
from appliance.host.site.api_keys import AccessStore
from appliance.resources import playbooks_path
from appliance.serve.gateway.messages import EngineEvent, Plan
from appliance.serve.gateway.routes import Gateway
from appliance.serve.supervisor.engine_states import read_engine_states
from appliance.serve.supervisor.launch_plan import SharedMemory, make_plan, read_launch
from appliance.serve.unit_programs import engine as engine_program
from appliance.serve.unit_programs import gateway as gateway_program
from appliance.serve.unit_programs import startup
from signing.errors import ApplianceError, HostUnfitError, NotTrustedError
from tests.appliance.serve.gateway.site import eventually, question
from tests.sim.releases import install_toy, write_config
from tests.toy import NOW

NO_WINDOW = Path("/nonexistent/window")
BYTES_DIFFER = "its bytes are not the signed ones"


class UnitHost:
    """A toy release whose units are called by hand."""

    def __init__(self, release: Release) -> None:
        self.release, self.prefix = release, release.prefix
        # The prefix lies on a long path, and systemd makes the folder before it starts a unit.
        self.socket = engine_socket(self.prefix, release.path, "toy")
        self.socket.parent.mkdir(parents=True)

    def start_engine_unit(self, model: str = "toy") -> int:
        """Run the program of the engine's unit; gives its exit code."""
        return startup.run(lambda: engine_program.start(self.prefix, self.release.path.name, model))

    def store(self) -> Path:
        return self.release.model_file(self.release.contents.models[0])[1]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnitHost:
    release = install_toy(tmp_path)
    # The contents of the toy name a runtime that is no wheel: what opens and checks it on disk has tests of its own.
    monkeypatch.setattr(engine_program, "open_release", lambda *_, **__: release)
    monkeypatch.setattr(engine_program, "check_engine_files", lambda _release: None)
    monkeypatch.setattr(engine_program, "measured_threads", lambda _release: 1)
    return UnitHost(release)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that a unit's program has become, in place of that."""
    found: list[list[str]] = []
    monkeypatch.setattr(engine_program, "become", lambda command, *_: found.append(command))
    monkeypatch.setattr(os, "chdir", lambda _path: None)
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_model(host: UnitHost, _monkeypatch: pytest.MonkeyPatch) -> None:
    flip(host.store())


def plant_program(_host: UnitHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_release: Release) -> None:
        raise NotTrustedError("contents.unlisted", "runtime/libevil.so")

    monkeypatch.setattr(engine_program, "check_engine_files", check)


def change_configuration(host: UnitHost, _monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(host.release, "engine-toy.json", {"name": "other"})


@pytest.mark.parametrize(("attack", "code"), [(damage_model, 3), (plant_program, 4), (change_configuration, 9)])
def test_unit_that_ends_because_its_bytes_differ_is_shown_as_stopped_with_that_reason(
    host: UnitHost,
    executed: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    attack: Callable[[UnitHost, pytest.MonkeyPatch], None],
    code: int,
) -> None:
    attack(host, monkeypatch)
    assert host.start_engine_unit() == code
    assert executed == []
    written = json.loads(host.socket.with_suffix(".json").read_bytes())
    assert written == {"status": "stopped", "reason": BYTES_DIFFER, "level": "", "isolation": "", "pid": 0}
    with watching(host) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        shown = {"name": "toy", "state": "stopped", "level": "", "isolation": "", "reason": BYTES_DIFFER}
        assert ready.json()["models"] == [shown]
        [model] = client.get("/v1/models").json()["data"]
        assert (model["state"], model["reason"]) == ("stopped", BYTES_DIFFER)
        refused = client.post("/v1/chat/completions", json=question("x"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
        assert BYTES_DIFFER in refused.json()["error"]["message"]
        assert 'engine_up{isolation="",level="",model="toy"} 0' in client.get("/metrics").text
    assert caplog.messages == [f"the model toy was stopped: {BYTES_DIFFER}"]


@contextmanager
def watching(host: UnitHost) -> Iterator[TestClient]:
    """The gateway of the unit after its first look at the engines, with a key in every request."""
    # The configuration may be damaged: the gateway has read it before.
    engine = host.release.config / "engine-toy.json"
    kept, path = engine.read_bytes(), host.prefix.root / "access.db"
    model = host.release.contents.models[0]
    rendered = {"name": "toy", "model": model.path, "store": str(host.store()), "runtime": str(host.release.runtime)}
    write_config(host.release, "engine-toy.json", {**rendered, "context": 16, "slots": 2})
    launch = read_launch(host.release, 1)
    engine.write_bytes(kept)
    store = AccessStore(path)
    key = store.grant("ann", NOW)
    plan = make_plan(launch, lambda name: engine_socket(host.prefix, host.release.path, name))
    gateway = Gateway(plan, store, lambda: NOW)

    async def look() -> None:
        for planned in plan.models:
            watch = asyncio.create_task(gateway_program.watch(gateway, planned, NO_WINDOW))
            await asyncio.sleep(0.5)
            watch.cancel()

    asyncio.run(look())
    with TestClient(gateway.application(), headers={"authorization": f"Bearer {key}"}) as client:
        yield client


def test_unit_that_cannot_run_here_is_stopped_with_another_reason(
    host: UnitHost, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_release: Release) -> None:
        raise HostUnfitError("host.unfit", "glibc")

    monkeypatch.setattr(engine_program, "check_engine_files", check)
    assert host.start_engine_unit() == 6
    assert read_state(host.socket) == EngineState("stopped", "it cannot run on this host")
    assert executed == []


def test_unit_of_a_model_that_the_release_does_not_serve_is_stopped(host: UnitHost, executed: list[list[str]]) -> None:
    other = engine_socket(host.prefix, host.release.path, "other")
    other.parent.mkdir()
    assert host.start_engine_unit("other") == 2
    assert read_state(other) == EngineState("stopped", "it cannot run on this host")
    assert executed == []


def test_unit_that_systemd_starts_again_is_not_shown_as_stopped(
    host: UnitHost, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_release: Release) -> None:
        raise ApplianceError("any", "thing")

    monkeypatch.setattr(engine_program, "check_engine_files", check)
    assert host.start_engine_unit() == 1
    assert read_state(host.socket) == EngineState("restarting")
    assert executed == []


def test_unit_shows_that_it_starts_while_it_verifies_and_what_it_found(
    host: UnitHost, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[EngineState | None] = []
    monkeypatch.setattr(engine_program, "check_engine_files", lambda _release: during.append(read_state(host.socket)))
    monkeypatch.setattr(engine_program, "measure_isolation", lambda: "netns")
    # What an earlier start left: its end in writing, and a socket on which nothing listens.
    write_state(host.socket, EngineState("stopped", BYTES_DIFFER))
    host.socket.touch()
    assert host.start_engine_unit() == 0
    assert during == [EngineState("starting", pid=os.getpid())]
    assert read_state(host.socket) == EngineState("starting", "", "E2", "netns", os.getpid())
    assert not host.socket.exists()
    [command] = executed
    assert command[command.index("--host") + 1] == str(host.socket)


def test_engine_that_answers_is_shown_as_serving_with_what_its_start_wrote(
    host: UnitHost, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("e")
    monkeypatch.setattr(engine_program, "engine_socket", lambda *_: folder / "toy.sock")
    planned = make_plan(read_launch(host.release, 1), lambda name: folder / f"{name}.sock").models[0]
    write_state(folder / "toy.sock", EngineState("starting", "", "E2", "netns", os.getpid()))
    assert gateway_program.read_engine(planned).status == "starting"
    spec = read_launch(host.release, 1).models[0].spec
    with start_engine(spec, folder, folder / "log") as engine:
        engine.wait_ready(20)
        assert gateway_program.read_engine(planned) == EngineState("serving", "", "E2", "netns", os.getpid())


def test_busy_engine_is_not_shown_as_ended_after_one_poll_but_a_stopped_one_is_at_once(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, missed = EngineState("serving", "", "E2", "netns", 1), EngineState("restarting")
    stopped = EngineState("stopped", BYTES_DIFFER)
    looks = [serving, missed, missed, serving, missed, missed, missed, stopped]
    plan = make_plan(read_launch(host.release, 1), lambda _name: host.socket)
    gateway, seen, left = Gateway(plan, AccessStore(host.prefix.root / "a.db"), lambda: NOW), [], list(looks)
    monkeypatch.setattr(gateway_program, "POLL_S", 0)
    monkeypatch.setattr(gateway, "on_event", lambda event: seen.append(event.state))

    def look(_model: object) -> EngineState:
        if not left:
            raise KeyboardInterrupt
        return left.pop(0)

    monkeypatch.setattr(gateway_program, "read_engine", look)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(gateway_program.watch(gateway, plan.models[0], NO_WINDOW))
    assert seen == [serving, serving, missed, stopped]


def test_model_that_stays_stopped_is_logged_once(host: UnitHost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    plan = make_plan(read_launch(host.release, 1), lambda _name: host.socket)
    gateway = Gateway(plan, AccessStore(host.prefix.root / "a.db"), lambda: NOW)
    for _ in range(3):
        gateway.on_event(EngineEvent("toy", EngineState("stopped", BYTES_DIFFER)))
    assert caplog.messages == [f"the model toy was stopped: {BYTES_DIFFER}"]


def test_status_finds_the_states_of_engines_that_systemd_runs(host: UnitHost, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(host.socket, EngineState("stopped", BYTES_DIFFER))
    assert read_engine_states(host.release) == {}  # nothing serves below a prefix
    monkeypatch.setattr(type(host.prefix), "is_system", True)
    assert read_engine_states(host.release) == {"toy": EngineState("stopped", BYTES_DIFFER)}


@pytest.mark.parametrize("unit", ["engine/templates/appliance-engine", "gateway/templates/appliance-gateway"])
def test_exits_after_which_a_unit_counts_as_stopped_are_those_that_systemd_does_not_try_again(unit: str) -> None:
    text = (playbooks_path() / "roles" / f"{unit}.service.j2").read_text()
    [listed] = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    words = listed.split()
    assert tuple(int(word) for word in words if word.isdigit()) == startup.FINAL_EXITS
    # An incident: to start again would read the same disk.
    assert [word for word in words if not word.isdigit()] == ["SIGBUS"] * ("engine" in unit)


def test_folder_of_an_engines_state_outlives_its_unit() -> None:
    text = (playbooks_path() / "roles/engine/templates/appliance-engine.service.j2").read_text()
    settings: dict[str, Any] = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    assert settings["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.parametrize("context", [1, 512, 8192, 131072, 1 << 22])
def test_unit_gives_the_threads_of_its_engine_the_stack_that_serve_gives_them(context: int) -> None:
    text = (playbooks_path() / "roles/engine/templates/appliance-engine.service.j2").read_text()
    [line] = re.findall(r"^LimitSTACK=.*$", text, re.MULTILINE)
    assert Template(line).render(item={"context": context}) == f"LimitSTACK={stack_bytes(context)}"


def test_model_on_demand_is_loaded_when_its_mark_is_there_and_verified_after_that(
    host: UnitHost, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_engine(host, keep_alive=60)
    waits: list[EngineState | None] = []
    mark = load_mark(host.prefix, host.release.path, "toy")
    mark.parent.mkdir(parents=True)

    def sleep(_seconds: float) -> None:
        waits.append(read_state(host.socket))
        if len(waits) == 1:
            mark.symlink_to("/nonexistent")  # no mark: only a plain file is one
        else:
            mark.unlink()
            set_mark(mark)
            flip(host.store())

    monkeypatch.setattr(engine_program, "sleep", sleep)
    assert host.start_engine_unit() == 3
    assert (waits, executed) == ([EngineState("unloaded", pid=os.getpid())] * 2, [])
    flip(host.store())
    assert host.start_engine_unit() == 0  # the mark is there: it is loaded at once
    assert (len(waits), len(executed)) == (2, 1)


def test_pinned_model_is_loaded_without_a_mark(host: UnitHost, executed: list[list[str]]) -> None:
    change_engine(host, keep_alive=60, pin=True)
    assert host.start_engine_unit() == 0
    assert len(executed) == 1


def test_gateway_shows_what_is_unloaded_and_is_ready(host: UnitHost) -> None:
    change_engine(host, keep_alive=60)
    write_state(host.socket, EngineState("unloaded", pid=os.getpid()))
    launch = read_launch(host.release, 1)
    marks = [host.prefix.root / "toy.load"]
    plan = make_plan(
        launch, lambda _name: host.socket, lambda _name: marks[0], SharedMemory(launch.models[0].spec.file.size)
    )
    assert Plan.from_bytes(plan.to_bytes()) == plan
    store = AccessStore(host.prefix.root / "a.db")
    gateway = Gateway(plan, store, lambda: NOW)
    application = gateway.application(gateway_program._watch_engines(gateway, NO_WINDOW))
    with TestClient(application) as client:
        assert eventually(lambda: client.get("/readyz").json()["models"][0]["state"] == "unloaded")
        assert client.get("/readyz").status_code == 200
        assert not marks[0].exists()


def test_trial_of_an_install_loads_a_model_on_demand_for_its_questions_alone(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = SystemdServices(host.prefix, lambda: NOW)
    mark = load_mark(host.prefix, host.release.path, "toy")
    owners: list[tuple[Path, str, str]] = []
    monkeypatch.setattr(shutil, "chown", lambda path, user, group: owners.append((path, user, group)))
    states = iter(["serving", "serving", "unloaded"])
    monkeypatch.setattr(EngineClient, "state", lambda _client: EngineState(next(states)))
    monkeypatch.setattr(systemd_services, "_POLL_S", 0)
    with services._loaded(host.release, host.release.contents.models[0]):
        assert is_marked(mark)
    assert not is_marked(mark)
    assert owners == [(mark.parent, "appliance-gateway", "appliance")]
    assert next(states, None) is None  # it has waited until the memory is free


@pytest.mark.parametrize(("keep_alive", "health"), [(60, Health.READY), (0, Health.WAITING)])
def test_unloaded_model_is_healthy_where_it_may_be_unloaded(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch, keep_alive: int, health: Health
) -> None:
    change_engine(host, keep_alive=keep_alive)
    services = SystemdServices(host.prefix, lambda: NOW)
    monkeypatch.setattr(services, "_is_served", lambda _release: True)
    monkeypatch.setattr(
        systemd_services, "systemctl", SimpleNamespace(state=lambda _name: SimpleNamespace(active="active"))
    )
    write_state(host.socket, EngineState("unloaded", pid=os.getpid()))
    assert services.health(host.release) is health


def change_engine(host: UnitHost, **fields: object) -> None:
    path = host.release.config / "engine-toy.json"
    write_config(host.release, "engine-toy.json", {**json.loads(path.read_bytes()), **fields})
