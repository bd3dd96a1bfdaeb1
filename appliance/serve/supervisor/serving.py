"""`appliance serve`: verify, start, watch, follow a switch, stop.

Owns the order of a start and the end of everything that was started. Rules:
- nothing is started before the chain of trust, every installed file and the configuration have been compared. What is
  found is what `appliance status` finds, since both call `check_release`;
- the host is reported as ready when an engine answers from verified bytes through the gateway, and not before;
- the port is bound first: a port in use is reported before minutes of hashing, not after them. It stays over a switch;
- when this ends, however it ends, no child is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from socket import socket
from typing import Any

from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.process.journal import service_sink
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.api_keys import AccessStore, ensure_default
from appliance.host.tls.local_connection import format_url, local_address
from appliance.serve.supervisor import listener, run_dir
from appliance.serve.supervisor.engine_keeper import EngineKeeper
from appliance.serve.supervisor.launch_plan import Launch, measured_threads, read_launch
from appliance.serve.supervisor.scrub_keeper import ScrubKeeper
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import OnServiceEvent
from appliance.serve.supervisor.succession import Succession
from bundles.progress import OnProgress
from signing.errors import DriftError


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves now.

    Args:
        url: where users connect.
        key_file: holds a key that is good; None where the site keeps its keys elsewhere.
        find: gives the service that runs; after a switch another one than at the start.
        wait_for_end: serves until nothing is left.
    """

    url: str
    key_file: Path | None
    find: Callable[[], Service]
    wait_for_end: Callable[[], None]

    @property
    def launch(self) -> Launch:
        """What is served."""
        return self.find().launch

    def describe(self) -> dict[str, Any]:
        """One JSON value for the program that started this one."""
        bundle = self.launch.release.bundle.value
        return {
            "url": self.url,
            "key_file": str(self.key_file) if self.key_file else None,
            "release": {
                "name": bundle.contents.name,
                "version": bundle.contents.version,
                "manifest": bundle.manifest,
            },
            "models": [_describe(keeper) for keeper in self.find().keepers],
        }

    def wait(self) -> None:
        """Watch until the gateway fails or no model has its signed bytes; a switch is followed.

        Raises:
            ApplianceError: why nothing is left.
        """
        self.wait_for_end()


@contextmanager
def serving(
    prefix: Prefix, port: int | None, now: Callable[[], datetime], on_event: OnServiceEvent, on_progress: OnProgress
) -> Iterator[Serving]:
    """Serve what is installed, for the length of the block.

    Args:
        prefix: the host.
        port: where users connect; 0 for any free one, None for the site's.
        now: the clock, in UTC.
        on_event: called with what an operator may want to know, also from other threads.
        on_progress: called while bytes are compared.

    Yields:
        What serves, when it is ready.

    Raises:
        DamagedError, NotTrustedError, DriftError: what is installed is not what was signed; nothing was started.
        HostUnfitError: the port is taken.
        BusyError: another process serves from this host.
        ApplianceError: an engine or the gateway does not start.
    """
    release = open_current(prefix, now())
    launch = _read_launch(release, on_progress)
    with ExitStack() as stack:
        stack.enter_context(run_dir.hold(prefix))
        listening = stack.enter_context(_bind(launch, port, now()))
        check_release(release, on_progress, models=False)
        sockets = stack.enter_context(run_dir.sockets(prefix))

        def make(launch: Launch, sockets: Path) -> Service:
            served = launch.release
            return Service(launch, listening, sockets, lambda: check_release(served, models=False), on_event)

        def record() -> None:
            folder = str(succession.service.sockets)
            run_dir.write_record(prefix, {**found.describe(), "sockets": folder, "pid": os.getpid()})

        service = make(launch, sockets)
        succession = Succession(service, make, now, on_event, record)
        stack.callback(succession.stop)
        service.start_engines(on_progress)
        make_folder(prefix.etc)
        make_folder(prefix.gateway_state, PRIVATE)
        store = AccessStore(prefix.access)
        key_file = ensure_default(store, prefix.default_key, now())
        listener.listen(listening)
        service.gateway.start()
        scrub = ScrubKeeper(lambda: succession.service.launch.release, now, service_sink(os.environ, sys.stderr))
        stack.callback(scrub.stop)
        scrub.start()
        found = Serving(_url(listening, launch), key_file, lambda: succession.service, succession.wait)
        record()
        yield found


def _bind(launch: Launch, port: int | None, now: datetime) -> socket:
    if launch.tls is not None:
        from appliance.host.tls.certificates import require_usable  # noqa: PLC0415 - without TLS, nothing loads X.509

        where, option = str(launch.release.prefix.site_file), launch.release.prefix.option
        require_usable(launch.tls, now, launch.bind, where, option)
    return listener.bind(launch.bind, launch.port if port is None else port, is_tls=launch.tls is not None)


def _url(listening: socket, launch: Launch) -> str:
    address, port = listening.getsockname()[:2]
    return format_url(local_address(address), port, is_tls=launch.tls is not None)


def _describe(keeper: EngineKeeper) -> dict[str, Any]:
    """An engine for programs; empty texts and 0 for a model that is not loaded."""
    engine = keeper.engine
    if engine is None:
        return {"name": keeper.name, "level": "", "isolation": "", "pid": 0}
    return {
        "name": keeper.name,
        "level": engine.level,
        "isolation": engine.isolation,
        "pid": engine.child.program_pid,
    }


def _read_launch(release: Release, on_progress: OnProgress) -> Launch:
    try:
        return read_launch(release, lambda: measured_threads(release))
    except DriftError:
        # Without its configuration nothing can be served. What else differs may be graver, and is reported with it.
        check_release(release, on_progress)
        raise
