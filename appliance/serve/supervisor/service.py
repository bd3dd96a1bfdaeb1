"""The engines and the gateway of one release under `appliance serve`, kept alive.

Owns what runs of one release. An engine that keeps ending stops its own model and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from socket import socket

from appliance.host.activation.health import Health
from appliance.host.engine.load_mark import mark_path
from appliance.host.engine.process import socket_path
from appliance.host.engine.state import RESTARTING, EngineState
from appliance.host.models.incident import INCIDENT_CODE
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.supervisor import run_dir
from appliance.serve.supervisor.engine_keeper import EngineKeeper, unreadable
from appliance.serve.supervisor.gateway_process import GatewayProcess
from appliance.serve.supervisor.launch_plan import Launch, ServedModel, make_plan
from appliance.serve.supervisor.on_demand import OnDemandKeeper
from appliance.serve.supervisor.service_event import ENDED, OnServiceEvent, ServiceEvent
from appliance.serve.supervisor.shared_memory import shared_memory
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, worst

GATEWAY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before each new try. A gateway that has served for `SETTLED_S` begins again with the first."""
SETTLED_S = 600.0
_POLL_S = 0.25


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
        self.launch, self.sockets = launch, sockets
        self._recheck, self._on_event = recheck, on_event
        release = launch.release
        plan = make_plan(
            launch,
            lambda name: socket_path(sockets, name),
            lambda name: mark_path(sockets, name),
            shared_memory(launch),
        )
        log = run_dir.log_file(release.prefix, "gateway")
        self.gateway = GatewayProcess(release.python, release.path, plan, listening, log)
        self.keepers = self._make_keepers()
        self._has_made_room = False

    @property
    def label(self) -> str:
        """Name and version of the bundle."""
        return self.launch.release.bundle.value.label

    def start_engines(self, on_progress: OnProgress) -> None:
        """Verify every model, start every engine, and wait until all answer.

        A model with a recorded incident stays stopped, and the others serve.

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
                if error.code == INCIDENT_CODE:
                    keeper.stop_for(error)
                else:
                    errors.append(error)
            except OSError as error:
                errors.append(unreadable(keeper.served.model.path, error))
        if errors:
            raise worst(errors)
        self._refuse_where_none_is_left()
        for keeper in self.keepers:
            if not keeper.is_stopped:
                keeper.wait_ready()
                keeper.watch()

    def health(self) -> Health:
        """How this release is at this moment: whether users reach every model of it."""
        if any(keeper.is_stopped or keeper.error is not None for keeper in self.keepers):
            return Health.FAILED
        is_ready = self.gateway.exit_status() is None and all(keeper.is_ready for keeper in self.keepers)
        return Health.READY if is_ready else Health.WAITING

    def make_room(self) -> None:
        """End the engines, for those of another release; the gateway asks users to come again."""
        self._has_made_room = True
        for keeper in self.keepers:
            keeper.stop()
            self.gateway.send(EngineEvent(keeper.name, EngineState(RESTARTING)))

    def fill_room(self) -> None:
        """Start the engines again where they had made room.

        Raises:
            ApplianceError: as `start_engines`.
        """
        if self._has_made_room:
            self._has_made_room = False
            self.keepers = self._make_keepers()
            self.start_engines(ignore)

    def wait(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Keep the gateway running, until that fails or no model has its signed bytes.

        A model that was stopped since its engine keeps ending does not end this: the gateway answers for it.

        Args:
            is_over: asked several times a second; where it holds, this returns and everything runs on.

        Raises:
            ApplianceError: why nothing is left.
        """
        tries, began = 0, time.monotonic()
        while not is_over():
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

    def _make_keepers(self) -> tuple[EngineKeeper, ...]:
        return tuple(self._make_keeper(served) for served in self.launch.models)

    def _make_keeper(self, served: ServedModel) -> EngineKeeper:
        prefix, name = self.launch.release.prefix, served.model.name
        log = run_dir.log_file(prefix, run_dir.engine_name(name))
        given = (served, self.sockets, log, self._recheck, self._on_event, self.gateway.send, prefix)
        return OnDemandKeeper(*given, mark_path(self.sockets, name)) if served.is_on_demand else EngineKeeper(*given)

    def _refuse_where_none_is_left(self) -> None:
        errors = [keeper.error for keeper in self.keepers if keeper.error is not None]
        if len(errors) == len(self.keepers):
            raise worst(errors)

    def _check_keepers(self) -> None:
        self._refuse_where_none_is_left()
        for keeper in self.keepers:
            if not keeper.is_stopped and not keeper.is_watching:
                raise RuntimeError(f"nobody watches the engine of {keeper.name}")
