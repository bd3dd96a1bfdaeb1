"""Keeps the engine of a model that is loaded on demand.

Owns when that engine runs under `appliance serve`: while the gateway's mark is there. A start verifies the model and
the program each time, as every start of an engine does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from appliance.host.engine.load_mark import is_marked
from appliance.host.engine.state import UNLOADED, EngineState
from appliance.host.layout.prefix import Prefix
from appliance.host.models.incident import refuse_incident
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.supervisor.engine_keeper import EngineKeeper
from appliance.serve.supervisor.launch_plan import ServedModel
from appliance.serve.supervisor.service_event import OnServiceEvent
from bundles.progress import OnProgress, ignore

POLL_S = 0.1


class OnDemandKeeper(EngineKeeper):
    """Keeps one engine running while its model is to be loaded.

    Args:
        mark: the file whose presence means that; the others are those of `EngineKeeper`.
    """

    def __init__(
        self,
        served: ServedModel,
        run_dir: Path,
        log: Path,
        recheck: Callable[[], None],
        on_event: OnServiceEvent,
        on_state: Callable[[EngineEvent], None],
        prefix: Prefix,
        mark: Path,
    ) -> None:
        super().__init__(served, run_dir, log, recheck, on_event, on_state, prefix)
        self._mark = mark

    @property
    def is_ready(self) -> bool:
        """Whether users reach the model: it is loaded, or will be for a request."""
        return not self.is_stopped

    def start(self, _on_progress: OnProgress = ignore) -> None:
        """Start nothing yet.

        Raises:
            DriftError: an incident is recorded for its file.
        """
        refuse_incident(self._prefix, self.served.spec.file, self.name)
        self._set_unloaded()

    def wait_ready(self) -> None:
        """Wait for an engine that was started; before that there is nothing to wait for."""
        if self.engine is not None:
            super().wait_ready()

    def _watch(self) -> None:
        while not self._stopping.is_set() and not self.is_stopped:
            if not is_marked(self._mark):
                self._stopping.wait(POLL_S)
            elif self._start_again():
                super()._watch()

    def _wait_end(self) -> int | None:
        engine = self.engine
        if engine is None:
            return None
        while (code := engine.child.poll()) is None and not self._stopping.is_set():
            if not is_marked(self._mark):
                engine.stop()
                self.engine = None
                self._set_unloaded()
                return None
            self._stopping.wait(POLL_S)
        return engine.child.wait() if code is None else code

    def _set_unloaded(self) -> None:
        self._set_state(EngineState(UNLOADED, pid=os.getpid()))
