"""The program of the gateway's unit: it verifies the release, then is the gateway. Started by systemd:
`/opt/appliance/current/venv/bin/python -I -B -m appliance.serve.gateway_unit`.

Owns the start, and the watching of engines that systemd keeps running. Rules:
- nobody is answered before the chain of trust, every installed file but the models, and the configuration were
  compared. The port itself is held by systemd, which lets users wait meanwhile;
- an engine is shown to users as serving only while it answers, with the level that its own start wrote down;
- an engine that its own start or end has stopped is shown as stopped at once, with the reason; one that nothing starts
  again is shown as stopped a little later;
- the keys are read and never written: this process may not grant any.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from socket import socket
from time import monotonic

from starlette.applications import Starlette

from appliance.clock import utc_now
from appliance.host.engine.client import EngineClient
from appliance.host.engine.state import NOT_STARTED, RESTARTING, SERVING, STOPPED, UNLOADED, EngineState
from appliance.host.layout.places import REPAIR_HINT
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GATEWAY_SOCKET, engine_socket, load_mark, window_mark
from appliance.host.machine.threads import thread_count
from appliance.host.process.journal import service_sink
from appliance.host.release.release import open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage_file import USAGE_FILE
from appliance.serve.gateway.messages import EngineEvent, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.gateway.server import serve
from appliance.serve.supervisor import listener
from appliance.serve.supervisor.launch_plan import make_plan, read_launch
from appliance.serve.supervisor.shared_memory import shared_memory
from appliance.serve.unit_programs import startup
from signing.errors import DriftError

POLL_S = 1.0
MAX_MISSES = 3
"""Polls in a row without an answer after which an engine counts as not serving."""
GIVEN_UP_S = 60.0
"""How long an engine may have no process: systemd starts one again after 2 s, and that writes a state at once."""


def start(prefix: Prefix) -> None:
    """Verify what is installed, then serve it until SIGTERM.

    Args:
        prefix: the host.

    Raises:
        DamagedError, NotTrustedError, DriftError: what is installed is not what was signed, or the port of systemd is
            not that of the configuration; nobody is answered.
        HostUnfitError: the port is taken.
    """
    release = open_current(prefix, utc_now())
    check_release(release, models=False)
    launch = read_launch(release, thread_count())
    plan = make_plan(
        launch,
        lambda name: engine_socket(prefix, release.path, name),
        lambda name: load_mark(prefix, release.path, name),
        shared_memory(launch),
    )
    on_event = service_sink(os.environ, sys.stderr)
    access, usage = AccessStore(prefix.access, is_read_only=True), prefix.gateway_state / USAGE_FILE
    gateway = Gateway(plan, access, utc_now, on_event, usage)
    with _listener(launch.bind, launch.port, is_tls=launch.tls is not None) as port:
        listener.listen(port)
        serve(gateway, port, _watch_engines(gateway, window_mark(prefix)))


def _listener(bind: str, port: int, *, is_tls: bool = False) -> socket:
    """The socket of systemd; one of its own where the units of an earlier version start this program."""
    passed = startup.passed_socket()
    if passed is None:
        return listener.bind(bind, port, is_tls=is_tls)
    address = passed.getsockname()[:2]
    if address != (bind, port):
        passed.close()
        raise DriftError(
            "gateway.other-port",
            GATEWAY_SOCKET,
            expected=f"{bind} port {port}, as config/gateway.json states",
            found=f"{address[0]} port {address[1]}",
            hint=REPAIR_HINT,
        )
    return passed


def read_engine(model: PlannedModel) -> EngineState:
    """The state of an engine now: what its own start wrote, and whether it answers."""
    return EngineClient(model.name, Path(model.socket), "").state()


async def watch(gateway: Gateway, model: PlannedModel, window: Path) -> None:
    """Send each state of an engine to the gateway, until cancelled.

    Args:
        gateway: what the routes work on.
        model: of its plan.
        window: while this file exists, engines that do not answer make room for others, and requests are to come again.
    """
    misses = MAX_MISSES
    ended_at: float | None = None
    while True:
        state = await asyncio.to_thread(read_engine, model)
        # The mark is there before an engine is stopped for it, so it is read after the state.
        is_window = state.status != SERVING and window.exists()
        if is_window:
            state, misses = EngineState(RESTARTING), MAX_MISSES
        if state.status != RESTARTING or is_window:
            ended_at = None
        elif ended_at is None:
            ended_at = monotonic()
        elif monotonic() - ended_at > GIVEN_UP_S:
            state = EngineState(STOPPED, NOT_STARTED)
        misses = 0 if state.status == SERVING else misses + 1
        # One poll without an answer may be a busy moment; that it is stopped stands in writing.
        if state.status in (SERVING, STOPPED, UNLOADED) or misses >= MAX_MISSES:
            gateway.on_event(EngineEvent(model.name, state))
        await asyncio.sleep(POLL_S)


def _watch_engines(gateway: Gateway, window: Path) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        watches = [asyncio.create_task(watch(gateway, model, window)) for model in gateway.plan.models]
        startup.notify_ready()
        try:
            yield
        finally:
            for one in watches:
                one.cancel()

    return lifespan


def main() -> int:
    """Entry point of the unit."""
    return startup.run(lambda: start(Prefix(Path("/"))))


if __name__ == "__main__":
    sys.exit(main())
