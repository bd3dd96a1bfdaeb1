"""The program of the gateway's unit: it verifies the release, then is the gateway. Started by systemd:
`/opt/appliance/current/venv/bin/python -I -B -m appliance.serve.units.gateway`.

Owns the start, and the looking after engines that systemd keeps. Rules:
- nothing listens before the chain of trust, every installed file but the models, and the configuration were compared;
- an engine is told to users as serving only while it answers, with the level that its own start wrote down;
- the keys are read and never written: this process may not grant any.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

from appliance.clock import utc_now
from appliance.host.engine.client import EngineClient
from appliance.host.machine.threads import thread_count
from appliance.host.release.check import check_release
from appliance.host.release.release import open_current
from appliance.host.site.api_keys import AccessStore
from appliance.host.tree.prefix import Prefix
from appliance.host.tree.units import engine_folder
from appliance.serve.gateway.messages import RESTARTING, SERVING, News, PlannedModel
from appliance.serve.gateway.routes import Gateway
from appliance.serve.gateway.server import serve
from appliance.serve.supervisor import listener
from appliance.serve.supervisor.launch import plan_of, read_launch
from appliance.serve.units import startup
from appliance.serve.units.engine import STATE_FILE

POLL_S = 1.0
MISSES = 3
"""Looks in a row without an answer after which an engine counts as not serving."""


def start(prefix: Prefix) -> None:
    """Verify what is installed, then serve it until told to stop.

    Args:
        prefix: the host.

    Raises:
        DamagedError, NotTrustedError, DriftError: what is installed is not what was signed; nothing listens.
        HostUnfitError: the port is taken.
    """
    release = open_current(prefix, utc_now())
    check_release(release, models=False)
    launch = read_launch(release, thread_count())
    manifest = release.bundle.value.manifest
    plan = plan_of(launch, lambda name: engine_folder(prefix, manifest, name) / "engine.sock")
    gateway = Gateway(plan, AccessStore(prefix.access, is_read_only=True), utc_now)
    with listener.bind(launch.bind, launch.port) as port:
        listener.listen(port)
        serve(gateway, port, _watching(gateway))


def look(model: PlannedModel) -> News | None:
    """What becomes of an engine now; None where it does not answer."""
    path = Path(model.socket)
    if not EngineClient(model.name, path, "").is_healthy():
        return None
    try:
        state = json.loads((path.parent / STATE_FILE).read_bytes())
        return News(model.name, SERVING, str(state["level"]), str(state["isolation"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it has just ended, and took the file along


def _watching(gateway: Gateway) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        watches = [asyncio.create_task(_watch(gateway, model)) for model in gateway.plan.models]
        startup.tell_ready()
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()

    return lifespan


async def _watch(gateway: Gateway, model: PlannedModel) -> None:
    missed = MISSES
    while True:
        news = await asyncio.to_thread(look, model)
        missed = 0 if news else missed + 1
        if news is not None:
            gateway.hear(news)
        elif missed >= MISSES:
            gateway.hear(News(model.name, RESTARTING))
        await asyncio.sleep(POLL_S)


def main() -> int:
    """What systemd starts."""
    return startup.run(lambda: start(Prefix(Path("/"))))


if __name__ == "__main__":
    sys.exit(main())
