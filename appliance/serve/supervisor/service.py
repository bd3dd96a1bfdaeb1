"""`appliance serve`: verify, start, watch, stop.

Owns the order of a start and the end of everything that was started. Rules:
- nothing is started before the chain of trust, every installed file and the configuration have been compared. What is
  found is what `appliance status` finds, since both call `check_release`;
- the host is reported as ready when an engine answers from verified bytes through the gateway, and not before;
- the port is bound first: a port in use is reported before minutes of hashing, not after them;
- an engine that keeps ending stops its own model and nothing else;
- when this ends, however it ends, no child is left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from socket import socket
from typing import Any

from appliance.host.engine.process import socket_path
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.machine.threads import thread_count
from appliance.host.release.release import Release, open_current
from appliance.host.release.release_check import check_release
from appliance.host.site.api_keys import AccessStore, ensure_default
from appliance.serve.supervisor import listener, run_dir
from appliance.serve.supervisor.engine_keeper import EngineKeeper, unreadable
from appliance.serve.supervisor.gateway_process import GatewayProcess
from appliance.serve.supervisor.launch_plan import Launch, make_plan, read_launch
from appliance.serve.supervisor.service_event import ENDED, OnServiceEvent, ServiceEvent
from bundles.progress import OnProgress
from signing.errors import ApplianceError, DriftError, worst

GATEWAY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before each new try. A gateway that has served for `SETTLED_S` begins again with the first."""
SETTLED_S = 600.0
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves now.

    Args:
        url: where users connect.
        key_file: holds a key that is good; None where the site keeps its keys elsewhere.
        launch: what is served.
        keepers: one for each model.
    """

    url: str
    key_file: Path | None
    launch: Launch
    keepers: tuple[EngineKeeper, ...]
    _service: Service

    def describe(self) -> dict[str, Any]:
        """One JSON value for the program that started this one."""
        bundle = self.launch.release.bundle.value
        engines = [keeper.engine for keeper in self.keepers if keeper.engine is not None]
        return {
            "url": self.url,
            "key_file": str(self.key_file) if self.key_file else None,
            "release": {
                "name": bundle.contents.name,
                "version": bundle.contents.version,
                "manifest": bundle.manifest,
            },
            "models": [
                {
                    "name": engine.spec.name,
                    "level": engine.level,
                    "isolation": engine.isolation,
                    "pid": engine.child.program_pid,
                }
                for engine in engines
            ],
        }

    def wait(self) -> None:
        """Watch until the gateway fails or no model has its signed bytes.

        Raises:
            ApplianceError: why nothing is left.
        """
        self._service.wait()


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
        listening = stack.enter_context(listener.bind(launch.bind, launch.port if port is None else port))
        check_release(release, on_progress, models=False)
        sockets = stack.enter_context(run_dir.sockets(prefix))
        service = Service(launch, listening, sockets, lambda: check_release(release, models=False), on_event)
        stack.callback(service.stop)
        service.start_engines(on_progress)
        make_folder(prefix.etc)
        store = AccessStore(prefix.access)
        key_file = ensure_default(store, prefix.default_key, now())
        listener.listen(listening)
        service.gateway.start()
        found = Serving(listener.format_url(listening), key_file, launch, service.keepers, service)
        run_dir.write_record(prefix, {**found.describe(), "sockets": str(sockets), "pid": os.getpid()})
        yield found


def _read_launch(release: Release, on_progress: OnProgress) -> Launch:
    try:
        return read_launch(release, thread_count())
    except DriftError:
        # Without its configuration nothing can be served. What else differs may be graver, and is reported with it.
        check_release(release, on_progress)
        raise


class Service:
    """The engines and the gateway of one release.

    Args:
        launch: what is served.
        listening: the socket that users connect to.
        sockets: a private folder for those of the engines.
        recheck: compares everything but the models with what was signed; called before each new start.
        on_event: called with what an operator may want to know.
    """

    def __init__(
        self, launch: Launch, listening: socket, sockets: Path, recheck: Callable[[], None], on_event: OnServiceEvent
    ) -> None:
        self._recheck, self._on_event = recheck, on_event
        release = launch.release
        plan = make_plan(launch, lambda name: socket_path(sockets, name))
        log = run_dir.log_file(release.prefix, "gateway")
        self.gateway = GatewayProcess(release.python, release.path, plan, listening, log)
        self.keepers = tuple(
            EngineKeeper(
                served,
                sockets,
                run_dir.log_file(release.prefix, run_dir.engine_name(served.model.name)),
                recheck,
                on_event,
                self.gateway.send,
            )
            for served in launch.models
        )

    def start_engines(self, on_progress: OnProgress) -> None:
        """Verify every model, start every engine, and wait until all answer.

        Args:
            on_progress: called while models are verified.

        Raises:
            ApplianceError: the gravest of all differences, with the others attached; or an engine does not start.
        """
        errors: list[ApplianceError] = []
        for keeper in self.keepers:
            try:
                keeper.start(on_progress)
            except ApplianceError as error:
                errors.append(error)
            except OSError as error:
                errors.append(unreadable(keeper.served.model.path, error))
        if errors:
            raise worst(errors)
        for keeper in self.keepers:
            keeper.wait_ready()
            keeper.watch()

    def wait(self) -> None:
        """Keep the gateway running, until that fails or no model has its signed bytes.

        A model that was stopped since its engine keeps ending does not end this: the gateway answers for it.

        Raises:
            ApplianceError: why nothing is left.
        """
        tries, began = 0, time.monotonic()
        while True:
            self._check_keepers()
            status = self.gateway.exit_status()
            if status is None:
                time.sleep(_POLL_S)
                continue
            self._on_event(ServiceEvent(ENDED, "gateway", status))
            tries = 0 if time.monotonic() - began > SETTLED_S else tries
            if tries == len(GATEWAY_PAUSES_S):
                raise self.gateway.ended(status)
            time.sleep(GATEWAY_PAUSES_S[tries])
            tries += 1
            self._recheck()
            self.gateway.start()
            began = time.monotonic()

    def stop(self) -> None:
        """End the gateway, which finishes what it began, then the engines."""
        self.gateway.stop()
        for keeper in self.keepers:
            keeper.stop()

    def _check_keepers(self) -> None:
        errors = [keeper.error for keeper in self.keepers if keeper.error is not None]
        if len(errors) == len(self.keepers):
            raise worst(errors)
        for keeper in self.keepers:
            if not keeper.is_stopped and not keeper.is_watching:
                raise RuntimeError(f"nobody watches the engine of {keeper.name}")
