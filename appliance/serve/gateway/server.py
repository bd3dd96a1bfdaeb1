"""The process that users talk to. Started by `appliance.serve.supervisor.service`, from the release's own environment:
`venv/bin/python -I -B -m appliance.serve.gateway --plan FD --listen FD --news FD`.

Owns the event loop and the web server. All that it knows comes through three descriptors: the plan, a socket that
listens already, and events of engines, one line each. It opens the database of keys and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from appliance.clock import utc_now
from appliance.host.process.journal import service_sink
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage_file import usage_beside
from appliance.serve.gateway import log_lines
from appliance.serve.gateway.messages import EngineEvent, Plan
from appliance.serve.gateway.routes import Gateway
from appliance.serve.listening.connection_timeouts import IDLE_S, TimeoutProtocol
from appliance.serve.listening.crowding import Door
from appliance.serve.listening.draining import FINISH_S, DrainingServer
from appliance.serve.listening.tls import TlsKeeper, run

MAX_CONNECTIONS = 1024
"""More than a crowd holds: a request above that is one of so many that are being answered."""
DESCRIPTORS = 4 * MAX_CONNECTIONS
"""A connection takes one, and while it is answered one for the keys and one for the engine."""
MAX_HEAD_BYTES = 64 << 10


def main() -> None:
    """Serve until SIGTERM."""
    # The supervisor that starts this may be of another version: names of options stay.
    parser = argparse.ArgumentParser(prog="appliance.serve.gateway.server")
    for name in ("--plan", "--listen", "--news"):
        parser.add_argument(name, type=int, required=True, metavar="FD")
    options = parser.parse_args()
    with open(options.plan, "rb") as file:
        plan = Plan.from_bytes(file.read())
    access, sink = Path(plan.access), service_sink(os.environ, sys.stderr)
    gateway = Gateway(plan, AccessStore(access), utc_now, sink, usage_beside(access))
    serve(gateway, socket.socket(fileno=options.listen), _receive_events(gateway, options.news))


def serve(
    gateway: Gateway,
    listener: socket.socket,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> None:
    """Serve until SIGTERM; `appliance.serve.listening.draining` has the order of the end.

    Args:
        gateway: what the routes work on.
        listener: a socket that listens already; its descriptor is taken over.
        lifespan: runs as long as this serves; see Starlette.
    """
    log_lines.configure()
    _allow_descriptors()
    door = Door(fileno=listener.detach())
    door.crowd = TimeoutProtocol.crowd
    tls = TlsKeeper(gateway.plan.tls, utc_now, gateway.report) if gateway.plan.tls is not None else None
    config = uvicorn.Config(
        gateway.application(_following(tls, lifespan)),
        http=TimeoutProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=FINISH_S,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    run(DrainingServer(config, gateway.ending).serve(sockets=[door]))


def _following(
    tls: TlsKeeper | None, inner: Callable[[Starlette], AbstractAsyncContextManager[None]]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """A lifespan in which changed certificates are taken: soon after the change, and at once at SIGHUP."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, tls.wake if tls is not None else lambda: None)
        watching = asyncio.create_task(tls.watch()) if tls is not None else None
        try:
            async with inner(application):
                yield
        finally:
            if watching is not None:
                watching.cancel()

    return lifespan


def _allow_descriptors() -> None:
    # A unit may not change its limits; there the unit itself sets them.
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _receive_events(gateway: Gateway, descriptor: int) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        receiving = asyncio.create_task(_pass_events(reader, gateway))
        try:
            yield
        finally:
            receiving.cancel()
            transport.close()

    return lifespan


async def _pass_events(reader: asyncio.StreamReader, gateway: Gateway) -> None:
    # The pipe ends with the supervisor, and so does this process: its launcher sees to that.
    async for line in reader:
        gateway.on_event(EngineEvent.from_line(line))


if __name__ == "__main__":
    main()
