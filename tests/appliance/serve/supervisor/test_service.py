"""Engines and gateway are kept alive, verified before each start, and gone when serving ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from appliance.host.engine.client import EngineClient
from appliance.host.engine.crashes import CRASHED, MAX_CRASHES, recent_crashes
from appliance.host.engine.engine_command import EngineSpec
from appliance.host.engine.process import Engine, start_engine
from appliance.host.engine.state import EngineState, read_state
from appliance.host.release.release import Release
from appliance.host.site.api_keys import AccessStore
from appliance.host.tls.local_connection import format_url
from appliance.serve.supervisor import engine_keeper, listener, run_dir
from appliance.serve.supervisor import service as service_module
from appliance.serve.supervisor.engine_states import read_engine_states
from appliance.serve.supervisor.launch_plan import ServedModel, read_launch
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import ServiceEvent
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, BusyError, DamagedError, DriftError
from tests.sim.releases import install_toy
from tests.toy import NOW


@dataclass
class Running:
    """A running service, its events, and the error with which its recheck is to fail."""

    release: Release
    service: Service
    url: str
    events: list[ServiceEvent]
    refusal: list[ApplianceError] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        engine = self.service.keepers[0].engine
        assert engine is not None
        return engine.socket

    def state(self) -> EngineState:
        """What is written beside the socket."""
        found = read_state(self.socket)
        assert found is not None
        return found

    def readyz(self) -> Any:
        try:
            with build_opener(ProxyHandler({})).open(f"{self.url}/readyz", timeout=5) as response:
                return json.loads(response.read())
        except HTTPError as error:
            with error:
                return json.loads(error.read())

    def ready(self) -> int:
        try:
            with build_opener(ProxyHandler({})).open(f"{self.url}/readyz", timeout=5) as response:
                return int(response.status)
        except HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def ask(self, key: str, model: str, said: str, timeout_s: float = 5) -> tuple[int, str]:
        """Chat; gives the status and the code of the error, if it is one."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": said}]}).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        chat = Request(f"{self.url}/v1/chat/completions", body, headers)
        try:
            with build_opener(ProxyHandler({})).open(chat, timeout=timeout_s) as response:
                return response.status, ""
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read())["error"]["code"]

    def has_ended(self, model: str, times: int) -> Callable[[], bool]:
        """Whether the engine of a model has ended so often."""
        return lambda: (
            times == sum(event.subject == model and event.what in ("ended", "given-up") for event in self.events)
        )

    def wait(self) -> None:
        """Wait until the service ends by itself."""
        with contextlib.suppress(ApplianceError):
            self.service.wait()

    def what(self) -> list[str]:
        return [event.what for event in self.events]

    def engine_pid(self) -> int:
        engine = self.service.keepers[0].engine
        assert engine is not None
        pid = engine.child.program_pid
        assert pid is not None
        return pid


def eventually(condition: Callable[[], object], timeout_s: float = 15) -> bool:
    until = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def renamed(served: ServedModel, name: str) -> ServedModel:
    return ServedModel(replace(served.model, name=name), replace(served.spec, name=name))


@contextmanager
def running(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...] = ("toy",),
    change: Callable[[ServedModel], ServedModel] = lambda served: served,
) -> Iterator[Running]:
    monkeypatch.setattr(engine_keeper, "PAUSES_S", (0.0,) * (MAX_CRASHES - 1))
    monkeypatch.setattr(service_module, "GATEWAY_PAUSES_S", (0.0,))
    release = install_toy(folder)
    events: list[ServiceEvent] = []
    refusal: list[ApplianceError] = []

    def recheck() -> None:
        if refusal:
            raise refusal[0]

    with ExitStack() as stack:
        listening = stack.enter_context(listener.bind("127.0.0.1", 0))
        sockets = stack.enter_context(run_dir.sockets(release.prefix))
        launch = read_launch(release, 1)
        launch = replace(launch, models=tuple(change(renamed(launch.models[0], name)) for name in names))
        service = Service(launch, listening, sockets, recheck, events.append)
        stack.callback(service.stop)
        service.start_engines(ignore)
        listener.listen(listening)
        service.gateway.start()
        yield Running(release, service, format_url(*listening.getsockname()[:2], is_tls=False), events, refusal)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with running(tmp_path, monkeypatch) as found:
        yield found


def test_a_killed_engine_is_started_again_after_another_check(run: Running) -> None:
    first = run.engine_pid()
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: run.what() == ["ready", "ended", "ready"])
    assert run.engine_pid() != first
    assert run.events[1].detail == "exit status 137 (SIGKILL)"
    assert eventually(lambda: run.ready() == 200)


def test_a_model_that_changed_on_disk_is_an_incident_and_stays_stopped(run: Running) -> None:
    store = run.service.keepers[0].served.spec.store
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    assert run.ready() == 200  # the sealed copy in memory is served still
    os.kill(run.engine_pid(), signal.SIGKILL)
    with pytest.raises(DamagedError) as caught:
        run.service.wait()
    assert (caught.value.subject, caught.value.exit_code) == ("models/toy/toy.gguf", 3)
    assert run.what() == ["ready", "ended", "incident"]
    assert eventually(lambda: run.ready() == 503)
    stopped = EngineState("stopped", "its bytes are not the signed ones")
    assert run.state() == stopped
    [model] = run.readyz()["models"]
    assert (model["state"], model["reason"]) == ("stopped", stopped.reason)


def test_state_of_an_engine_is_written_beside_its_socket_and_found_by_status(run: Running) -> None:
    serving = EngineState("serving", "", "E2", run.service.keepers[0].engine.isolation, run.engine_pid())  # type: ignore[union-attr]
    assert run.state() == serving
    assert eventually(lambda: run.readyz()["models"][0]["state"] == "serving")
    with run_dir.hold(run.release.prefix):
        assert read_engine_states(run.release) == {"toy": serving}
        os.kill(run.engine_pid(), signal.SIGSTOP)  # it answers no more; what is written alone does not count
        answer = threading.Timer(0.5, os.kill, (run.engine_pid(), signal.SIGKILL))
        answer.start()
        assert read_engine_states(run.release)["toy"].status in ("restarting", "starting")
        answer.join()
    assert eventually(lambda: run.what() == ["ready", "ended", "ready"])
    assert eventually(lambda: read_state(run.socket) == run.state())
    assert run.state().pid == run.engine_pid() != serving.pid


def test_engine_whose_model_is_being_verified_is_shown_as_starting(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[EngineState] = []

    def start(spec: EngineSpec, folder: Path, log: Path, on_progress: OnProgress) -> Engine:
        during.append(EngineClient("toy", run.socket, "").state())
        return start_engine(spec, folder, log, on_progress)

    monkeypatch.setattr(engine_keeper, "start_engine", start)
    os.kill(run.engine_pid(), signal.SIGKILL)
    assert eventually(lambda: run.what() == ["ready", "ended", "ready"])
    assert during == [EngineState("starting", pid=os.getpid())]


def test_a_program_or_configuration_that_changed_is_an_incident_too(run: Running) -> None:
    run.refusal.append(DriftError("release.config-changed", "config/gateway.json"))
    os.kill(run.engine_pid(), signal.SIGKILL)
    with pytest.raises(DriftError):
        run.service.wait()
    assert run.what() == ["ready", "ended", "incident"]


@pytest.mark.ci
def test_requests_that_end_an_engine_stop_its_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, monkeypatch, ("toy", "other")) as run:
        key = AccessStore(run.release.prefix.access).grant("ann", NOW)
        waiting = threading.Thread(target=run.wait, daemon=True)
        waiting.start()
        for crashes in range(1, MAX_CRASHES + 1):
            assert eventually(lambda: run.ask(key, "toy", "x")[0] == 200)
            assert run.ask(key, "toy", "die") == (503, "engine_lost")
            assert eventually(run.has_ended("toy", crashes))
        assert eventually(lambda: run.ask(key, "toy", "x") == (503, "model_stopped"))
        assert run.ask(key, "other", "x")[0] == 200
        models = {model["name"]: model for model in run.readyz()["models"]}
        assert (run.ready(), models["toy"]["state"], models["other"]["state"]) == (200, "stopped", "serving")
        assert models["toy"]["reason"] == CRASHED
        [event] = [event for event in run.events if event.what == "given-up"]
        assert event.line().startswith(f"toy stopped ({CRASHED}, the last with exit status 134 (SIGABRT)); next: see ")
        assert run.state() == EngineState("stopped", CRASHED)
        assert waiting.is_alive()  # `appliance serve` goes on
        for keeper in run.service.keepers:
            keeper.error = ApplianceError("test.end", keeper.name)
        waiting.join(5)


def test_last_model_that_is_stopped_by_crashes_leaves_a_gateway_that_tells_so(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_keeper, "MAX_CRASHES", 1)
    key = AccessStore(run.release.prefix.access).grant("ann", NOW)
    assert run.ask(key, "toy", "die") == (503, "engine_lost")
    assert eventually(lambda: run.ask(key, "toy", "x") == (503, "model_stopped"))
    run.service._check_keepers()
    assert run.ready() == 503
    assert run.what() == ["ready", "given-up"]
    assert eventually(lambda: not run.service.keepers[0].is_watching)
    run.service._check_keepers()


def test_crashes_of_long_ago_do_not_count() -> None:
    old = (0.0, 1.0, 2.0, 3.0)
    assert recent_crashes((*old, 5.0), 5.0) == (*old, 5.0)
    assert recent_crashes((*old, 602.0), 602.0) == (2.0, 3.0, 602.0)
    assert recent_crashes((900.0,), 5.0) == ()  # of another boot


def test_a_killed_gateway_is_started_again_and_given_up_at_last(run: Running) -> None:
    child = run.service.gateway._child
    assert child is not None
    program = child.program_pid
    assert program is not None
    os.kill(program, signal.SIGKILL)
    assert eventually(lambda: child.poll() is not None)
    original = run.service.gateway.start

    def start_and_kill() -> None:
        original()
        assert run.ready() == 200
        again = run.service.gateway._child
        assert again is not None
        pid = again.program_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    run.service.gateway.start = start_and_kill  # type: ignore[method-assign]
    with pytest.raises(ApplianceError) as caught:
        run.service.wait()
    assert caught.value.code == "gateway.ended"
    assert [event.subject for event in run.events] == ["toy", "gateway", "gateway"]


@pytest.mark.ci
def test_gateway_that_has_served_for_long_gets_all_its_tries_again(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SETTLED_S", 0.0)
    original, starts = run.service.gateway.start, []

    def start_and_kill() -> None:
        original()
        starts.append(run.ready())
        if len(starts) == 3:
            raise KeyboardInterrupt
        kill_gateway()

    def kill_gateway() -> None:
        child = run.service.gateway._child
        assert child is not None
        os.kill(child.program_pid or 0, signal.SIGKILL)

    run.service.gateway.start = start_and_kill  # type: ignore[method-assign]
    kill_gateway()
    with pytest.raises(KeyboardInterrupt):
        run.service.wait()
    assert starts == [200, 200, 200]


def test_when_serving_ends_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, monkeypatch) as run:
        pids = [run.engine_pid()]
        gateway = run.service.gateway._child
        assert gateway is not None
        pids += [gateway.process.pid, gateway.program_pid or 0]
        state = run_dir.read_record(run.release.prefix)
        assert Path(state["sockets"]).is_dir()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not Path(state["sockets"]).exists()
    assert run_dir.read_record(run.release.prefix) == {}


def test_a_model_that_is_damaged_at_the_start_stops_the_start(tmp_path: Path) -> None:
    release = install_toy(tmp_path)
    launch = read_launch(release, 1)
    launch.models[0].spec.store.write_bytes(b"")
    with listener.bind("127.0.0.1", 0) as listening, run_dir.sockets(release.prefix) as sockets:
        service = Service(launch, listening, sockets, lambda: None, lambda _event: None)
        try:
            with pytest.raises(DamagedError):
                service.start_engines(ignore)
        finally:
            service.stop()
        assert list(sockets.iterdir()) == []


def test_one_serve_at_a_time_for_each_host(tmp_path: Path) -> None:
    release = install_toy(tmp_path)
    prefix = release.prefix
    assert run_dir.read_serving(prefix) is None
    with run_dir.hold(prefix):
        run_dir.write_record(prefix, {"pid": 7, "url": "http://127.0.0.1:1"})
        with pytest.raises(BusyError) as caught, run_dir.hold(prefix):
            pass
        assert caught.value.found == "process 7 serving at http://127.0.0.1:1"
        serving = run_dir.read_serving(prefix)
        assert serving is not None
        assert serving["pid"] == 7
    assert run_dir.read_serving(prefix) is None
    with run_dir.hold(prefix):
        pass


def test_sockets_of_a_killed_serve_are_removed_by_the_next(tmp_path: Path) -> None:
    prefix = install_toy(tmp_path).prefix
    with run_dir.sockets(prefix) as left:
        kept = run_dir.read_record(prefix)
    left.mkdir()
    (left / "toy.sock").touch()
    run_dir.write_record(prefix, kept)
    with run_dir.sockets(prefix) as fresh:
        assert fresh.stat().st_mode & 0o777 == 0o700
        assert not left.exists() or left == fresh


def test_recorded_folder_that_serve_did_not_make_is_never_removed(tmp_path: Path) -> None:
    prefix = install_toy(tmp_path).prefix
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "appliance-sockets-link").symlink_to(precious)
    for recorded in (precious, tmp_path / "appliance-sockets-link", Path("appliance-sockets-relative")):
        run_dir.write_record(prefix, {"sockets": str(recorded)})
        with run_dir.sockets(prefix):
            assert precious.is_dir()


def test_long_log_is_renamed_once(tmp_path: Path) -> None:
    prefix = install_toy(tmp_path).prefix
    log = run_dir.log_file(prefix, "gateway")
    log.write_bytes(bytes(2 << 20))
    assert not run_dir.log_file(prefix, "gateway").exists()
    assert log.with_suffix(".log.1").stat().st_size == 2 << 20
