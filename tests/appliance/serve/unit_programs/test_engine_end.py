"""An engine that systemd runs and that ends by itself is counted, and its model is stopped after five times."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import Environment

from appliance import entry_points
from appliance.events import ENGINE_RESTARTED, INCIDENT, Event
from appliance.host.engine import engine_log
from appliance.host.engine.crashes import CRASHED, MAX_CRASHES, WINDOW_S, crash_file, read_crashes
from appliance.host.engine.load_mark import set_mark
from appliance.host.engine.state import EngineState, read_state, write_state
from appliance.host.layout.unit_files import load_mark, unit_of_release
from appliance.host.models.incident import (
    BUS_ERROR,
    BYTES,
    INCIDENT_CODE,
    UNREADABLE,
    WORDS,
    clear_incidents,
    make_incident,
    read_incident,
    record_incident,
)
from appliance.host.process.systemctl import UnitState
from appliance.host.site.api_keys import AccessStore
from appliance.resources import playbooks_path
from appliance.serve.gateway.routes import Gateway
from appliance.serve.supervisor.engine_states import read_engine_states, stopped_engines
from appliance.serve.supervisor.launch_plan import make_plan, read_launch
from appliance.serve.supervisor.service_event import ServiceEvent
from appliance.serve.unit_programs import gateway as gateway_program
from appliance.serve.unit_programs.engine import find_event
from appliance.serve.unit_programs.engine_end import record_end
from signing.errors import ApplianceError, DamagedError, DriftError, UsageError
from tests.appliance.serve.gateway.site import question
from tests.appliance.serve.unit_programs.test_engine_state import UnitHost, executed, flip, host, watching
from tests.sim.releases import write_config
from tests.toy import NOW

__all__ = ["executed", "host"]

NO_WINDOW = Path("/nonexistent/window")
SEGFAULT = {"SERVICE_RESULT": "core-dump", "EXIT_CODE": "dumped", "EXIT_STATUS": "SEGV"}
STOP = {"SERVICE_RESULT": "success", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"}
BUS = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "BUS"}
SKIP = {"SERVICE_RESULT": "exec-condition", "EXIT_CODE": "exited", "EXIT_STATUS": "1"}


def end(host: UnitHost, environment: dict[str, str], at: float = 1000.0) -> ServiceEvent | None:
    """What systemd runs after the end of the engine."""
    return record_end(host.prefix, host.release.path.name, "toy", environment, at)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.serve.unit_programs.engine.monotonic", lambda: 1000.0)


def crash(host: UnitHost, times: int) -> list[ServiceEvent | None]:
    """Start the unit and let the engine end, again and again."""
    events = []
    for _ in range(times):
        assert host.start_engine_unit() == 0
        events.append(end(host, SEGFAULT))
    return events


def test_five_ends_in_ten_minutes_are_too_many() -> None:
    assert (MAX_CRASHES, WINDOW_S) == (5, 600)


def test_model_whose_engine_ends_five_times_is_stopped_and_named_everywhere(
    host: UnitHost, executed: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    *before, last = [event.line() for event in crash(host, MAX_CRASHES) if event is not None]
    how = "exit status 139 (SIGSEGV)"
    assert before == [f"toy ended and is started again after another check ({how})"] * (MAX_CRASHES - 1)
    unit = unit_of_release(host.release.path, "toy")
    assert last == f"toy stopped ({CRASHED}, the last with {how}); next: systemctl restart {unit}"
    assert read_state(host.socket) == EngineState("stopped", CRASHED)
    # systemd tries once more, and gets an exit code after which it does not.
    assert host.start_engine_unit() == 8
    assert (len(executed), end(host, {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "8"})) == (MAX_CRASHES, None)
    assert f"systemctl restart {unit}" in capfd.readouterr().err
    with watching(host) as client:
        assert client.get("/readyz").json()["models"][0]["reason"] == CRASHED
        refused = client.post("/v1/chat/completions", json=question("x"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
        assert CRASHED in refused.json()["error"]["message"]


def test_next_start_after_that_is_a_persons_and_counts_anew(host: UnitHost, executed: list[list[str]]) -> None:
    crash(host, MAX_CRASHES)
    host.start_engine_unit()
    crash(host, MAX_CRASHES - 1)
    state = read_state(host.socket)
    assert state is not None
    assert (state.status, len(executed)) == ("restarting", 2 * MAX_CRASHES - 1)


def test_crashes_of_more_than_ten_minutes_ago_do_not_count(host: UnitHost) -> None:
    for number in range(2 * MAX_CRASHES):
        event = end(host, SEGFAULT, 1000.0 + number * WINDOW_S / (MAX_CRASHES - 1.5))
        assert event is not None
        assert event.what == "ended"


def test_engine_that_a_person_stops_is_shown_so_and_its_crashes_are_forgotten(
    host: UnitHost, executed: list[list[str]]
) -> None:
    crash(host, MAX_CRASHES - 1)
    assert end(host, STOP) is None
    assert read_state(host.socket) == EngineState("stopped", "its service was stopped")
    assert host.start_engine_unit() == 0
    assert len(executed) == MAX_CRASHES
    event = end(host, SEGFAULT)
    assert event is not None
    assert event.what == "ended"


def test_what_the_start_wrote_about_a_stop_is_kept(host: UnitHost, executed: list[list[str]]) -> None:
    flip(host.store())
    assert host.start_engine_unit() == 3
    assert end(host, {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "3"}) is None
    assert read_state(host.socket) == EngineState("stopped", "its bytes are not the signed ones")
    assert executed == []


def test_engine_of_another_release_that_systemd_skips_leaves_nothing(host: UnitHost) -> None:
    assert end(host, SKIP) is None
    assert list(host.socket.parent.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[true]", b"[NaN]", b"[" * 4000, b'["x"]', b"\xff"])
def test_record_that_is_none_counts_nothing(host: UnitHost, data: bytes) -> None:
    crash_file(host.socket).write_bytes(data)
    assert read_crashes(host.socket, 1000.0) == ()
    assert end(host, SEGFAULT) is not None
    assert read_crashes(host.socket, 1000.0) == (1000.0,)


def test_engine_that_nothing_starts_again_is_shown_as_stopped_by_the_gateway(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(host.socket, EngineState("restarting", "its engine ended: exit status 1"))
    monkeypatch.setattr(gateway_program, "POLL_S", 0.01)
    monkeypatch.setattr(gateway_program, "GIVEN_UP_S", 0.0)
    times = iter(range(10_000))
    monkeypatch.setattr("appliance.serve.unit_programs.gateway.monotonic", lambda: float(next(times)))
    plan = make_plan(read_launch(host.release, 1), lambda _name: host.socket)
    gateway, seen = Gateway(plan, AccessStore(host.prefix.root / "a.db"), lambda: NOW), []
    monkeypatch.setattr(gateway, "on_event", lambda event: seen.append(event.state))

    async def watch() -> None:
        watching = asyncio.create_task(gateway_program.watch(gateway, plan.models[0], NO_WINDOW))
        while EngineState("stopped", "nothing starts its engine again") not in seen:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(watch(), 10))


def test_engine_that_makes_room_for_a_switch_is_shown_as_restarting_whatever_it_wrote(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = host.prefix.root / "window"
    serving, stopped = EngineState("serving", "", "E2", "netns", 1), EngineState("stopped", "its service was stopped")
    looks = [serving, stopped, stopped, serving, stopped]
    monkeypatch.setattr(gateway_program, "POLL_S", 0)
    monkeypatch.setattr(gateway_program, "GIVEN_UP_S", 0.0)
    plan = make_plan(read_launch(host.release, 1), lambda _name: host.socket)
    gateway, seen = Gateway(plan, AccessStore(host.prefix.root / "a.db"), lambda: NOW), []
    monkeypatch.setattr(gateway, "on_event", lambda event: seen.append(event.state.status))

    def look(_model: object) -> EngineState:
        if not looks:
            raise KeyboardInterrupt
        window.unlink(missing_ok=True)
        if 1 < len(looks) < 5:
            window.touch()
        return looks.pop(0)

    monkeypatch.setattr(gateway_program, "read_engine", look)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(gateway_program.watch(gateway, plan.models[0], window))
    assert seen == ["serving", "restarting", "restarting", "serving", "stopped"]


@pytest.mark.parametrize(("active", "status"), [("failed", "stopped"), ("activating", "restarting")])
def test_status_asks_systemd_whether_it_has_given_up(
    host: UnitHost, monkeypatch: pytest.MonkeyPatch, active: str, status: str
) -> None:
    monkeypatch.setattr(type(host.prefix), "is_system", True)
    write_state(host.socket, EngineState("restarting"))
    unit = unit_of_release(host.release.path, "toy")
    states = read_engine_states(host.release, (UnitState(unit, active, "enabled", 139, ()),))
    assert states["toy"].status == status
    errors = stopped_engines(host.release, states)
    assert [(error.code, error.subject, error.exit_code) for error in errors] == (
        [("engine.stopped", "toy", 9)] if status == "stopped" else []
    )
    assert all(f"systemctl restart {unit}" in error.hint for error in errors)


def test_program_at_the_end_prints_its_line_and_never_fails_for_what_is_not_there() -> None:
    words = [sys.executable, "-I", "-m", entry_points.ENGINE_END, "1.0.0-0123456789ab", "no-such-model"]
    environment = {**os.environ, **SEGFAULT}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_unit_counts_before_systemd_does() -> None:
    path = playbooks_path() / "roles/engine/templates/appliance-engine.service.j2"
    text = path.read_text().replace("{{ 60 if is_on_demand | default(false) else 10 }}", "10")
    settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    assert int(settings["StartLimitBurst"]) > MAX_CRASHES + 1
    assert int(settings["StartLimitIntervalSec"]) == WINDOW_S
    assert entry_points.ENGINE_END in settings["ExecStopPost"]
    assert settings["ExecStopPost"].startswith("-{{ engine_release }}/venv/bin/python -I -B -m ")


def test_end_by_a_bus_error_is_an_incident_at_once_and_every_start_refuses(
    host: UnitHost, executed: list[list[str]]
) -> None:
    assert host.start_engine_unit() == 0
    event = end(host, BUS)
    assert event is not None
    assert event.what == "incident"
    assert event.is_stop
    assert "appliance install" in event.line()
    assert read_state(host.socket) == EngineState("stopped", WORDS[BUS_ERROR])
    file, _ = host.release.model_file(host.release.contents.models[0])
    found = read_incident(host.prefix, file.sha256, "toy")
    assert found is not None
    assert found.cause == BUS_ERROR
    assert read_crashes(host.socket, 1000.0) == ()
    executed.clear()
    assert host.start_engine_unit() == 9
    assert executed == []
    assert read_state(host.socket) == EngineState("stopped", WORDS[BUS_ERROR])
    clear_incidents(host.prefix, [file.sha256])
    assert host.start_engine_unit() == 0


def test_end_of_an_engine_that_a_scrub_has_stopped_shows_what_the_scrub_found(
    host: UnitHost, executed: list[list[str]]
) -> None:
    assert host.start_engine_unit() == 0
    file, _ = host.release.model_file(host.release.contents.models[0])
    record_incident(host.prefix, make_incident("toy", file.sha256, BYTES, "bytes 0 to 9", NOW))
    # One line for each incident: the scrub has written it.
    assert end(host, BUS) is None
    assert read_state(host.socket) == EngineState("stopped", WORDS[BYTES])


def test_incident_that_the_end_finds_is_one_event_and_so_is_a_crash(host: UnitHost, executed: list[list[str]]) -> None:
    assert host.start_engine_unit() == 0
    crashed = end(host, SEGFAULT)
    assert crashed is not None
    assert crashed.event() == Event(ENGINE_RESTARTED, {"model": "toy", "reason": "exit status 139 (SIGSEGV)"})
    found = end(host, BUS)
    assert found is not None
    event = found.event()
    assert event is not None
    assert (event.kind, event.fields["model"]) == (INCIDENT, "toy")
    assert end(host, BUS) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DamagedError("file.differs", "x", expected="a", found="b"), WORDS[BYTES]),
        (OSError(5, "Input/output error", "x"), WORDS[UNREADABLE]),
        (DriftError(INCIDENT_CODE, "x", expected="a", found="b"), None),
        (UsageError("x.y", "x", expected="a", found="b"), None),
        (OSError(12, "Cannot allocate memory"), None),
    ],
)
def test_start_that_finds_other_bytes_is_an_incident_once(error: ApplianceError | OSError, reason: str | None) -> None:
    event = find_event(error, ["program", "release", "toy"])
    assert event == (Event(INCIDENT, {"model": "toy", "reason": reason}) if reason else None)


def test_configuration_that_names_no_file_of_the_store_makes_no_record_elsewhere(
    host: UnitHost, executed: list[list[str]]
) -> None:
    assert host.start_engine_unit() == 0
    for store in ("/etc/passwd", "../../x", f"{host.prefix.models}/{'.' * 64}/model.gguf", 5):
        write_config(host.release, "engine-toy.json", {"store": store})
        event = end(host, BUS)
        assert event is not None
        assert event.what == "ended"
    assert not host.prefix.engine_state.exists()


UNLOADED = {"SERVICE_RESULT": "success", "EXIT_CODE": "killed", "EXIT_STATUS": "USR1"}


def test_engine_whose_model_is_unloaded_has_not_crashed_and_is_not_stopped(host: UnitHost) -> None:
    for _ in range(2 * MAX_CRASHES):
        assert end(host, UNLOADED) is None
    assert read_state(host.socket) == EngineState("restarting")
    assert read_crashes(host.socket, 1000.0) == ()


def test_model_that_is_wanted_again_while_its_engine_ends_is_not_stopped_by_a_person(host: UnitHost) -> None:
    mark = load_mark(host.prefix, host.release.path, "toy")
    mark.parent.mkdir(parents=True, exist_ok=True)
    set_mark(mark)
    assert end(host, UNLOADED) is None
    assert read_state(host.socket) == EngineState("restarting")


def test_signal_is_the_one_of_the_unit_which_systemd_starts_again() -> None:
    text = (playbooks_path() / "roles/engine/templates/appliance-engine.service.j2").read_text()
    environment = Environment(trim_blocks=True)
    environment.filters["basename"] = os.path.basename
    unit = environment.from_string(text)
    given = {"item": {"name": "toy", "context": 64}, "engine_release": "/r/1-0", "engine_release_id": "0"}
    on_demand = unit.render(is_on_demand=True, **given).splitlines()
    assert {"SuccessExitStatus=SIGUSR1", "RestartForceExitStatus=SIGUSR1", "StartLimitBurst=60"} <= set(on_demand)
    assert engine_log.UNLOADING == signal.SIGUSR1
    always = unit.render(**given).splitlines()
    assert not any("USR1" in line for line in always)
    assert "StartLimitBurst=10" in always
