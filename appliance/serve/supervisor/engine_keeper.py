"""Keeps one engine running: verifies, starts, waits for its end, and starts it again.

Owns the life of one model's engine under `appliance serve`. Rules:
- every start verifies the model and the program again, whatever was right before;
- a model or program whose bytes changed is an incident: that model stays stopped, and the others serve on;
- an engine that keeps ending is given up after a few tries, each later than the one before;
- each change of the engine's state is written beside its socket, and sent to the gateway.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from appliance.host.engine.process import Engine, socket_path, start_engine
from appliance.host.engine.state import (
    KEEPS_ENDING,
    RESTARTING,
    SERVING,
    STARTING,
    STOPPED,
    EngineState,
    state_file,
    stop_reason,
    write_state,
)
from appliance.host.process.child import describe_exit
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.supervisor.launch_plan import ServedModel
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new try. An engine that has served for `SETTLED_S` begins again with the first."""
SETTLED_S = 600.0


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """Something that an operator may want to know.

    Args:
        what: `ready`, `ended`, `incident`, `given-up` or `stopped`.
        subject: the model, or `gateway`.
        detail: in words.
        error: what was raised, for an incident.
    """

    what: str
    subject: str
    detail: str = ""
    error: ApplianceError | None = None


OnServiceEvent = Callable[[ServiceEvent], None]


class EngineKeeper:
    """Keeps one engine running.

    Args:
        served: the model and its engine.
        run_dir: a private folder for the socket.
        log: of the engine.
        recheck: compares program, libraries and configuration with what was signed; raises as `check_release`.
        on_event: called with what an operator may want to know, from the keeper's thread.
        on_state: called with each new state of the engine, from the keeper's thread.
    """

    def __init__(
        self,
        served: ServedModel,
        run_dir: Path,
        log: Path,
        recheck: Callable[[], None],
        on_event: OnServiceEvent,
        on_state: Callable[[EngineEvent], None],
    ) -> None:
        self.served = served
        self.engine: Engine | None = None
        self.error: ApplianceError | None = None
        self._run_dir, self._log = run_dir, log
        self._recheck, self._on_event, self._on_state = recheck, on_event, on_state
        self._stopping = Flag()
        self._thread: Thread | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.served.model.name

    @property
    def _socket(self) -> Path:
        return socket_path(self._run_dir, self.name)

    @property
    def is_watching(self) -> bool:
        """Whether the keeper's thread watches the engine."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, on_progress: OnProgress = ignore) -> None:
        """Verify the model and start its engine, which then loads.

        Args:
            on_progress: called while the model is verified.

        Raises:
            ApplianceError: as `start_engine`.
        """
        self._set_state(EngineState(STARTING, pid=os.getpid()))
        self.engine = start_engine(self.served.spec, self._run_dir, self._log, on_progress)
        self._set_state(_describe(self.engine, STARTING))

    def wait_ready(self) -> None:
        """Wait until the engine answers, and report that.

        Raises:
            ApplianceError: as `Engine.wait_ready`.
        """
        assert self.engine is not None  # started before
        began = time.monotonic()
        self.engine.wait_ready()
        self._set_state(_describe(self.engine, SERVING))
        detail = f"level {self.engine.level}, isolation {self.engine.isolation}, {time.monotonic() - began:.1f} s"
        self._on_event(ServiceEvent("ready", self.name, detail))

    def watch(self) -> None:
        """Watch the engine from now on, in a thread of its own."""
        self._thread = Thread(target=self._watch, name=f"keeper of {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the engine and the watching, and remove the state. Safe to call twice."""
        self._stopping.set()
        if self.engine is not None:
            self.engine.stop()
        if self._thread is not None:
            self._thread.join()
            if self.engine is not None:
                self.engine.stop()  # it may have been started again while this waited
        state_file(self._socket).unlink(missing_ok=True)

    def _watch(self) -> None:
        tries = 0
        while self.engine is not None:
            began = time.monotonic()
            code = self.engine.child.wait()
            if self._stopping.is_set():
                return
            self._set_state(EngineState(RESTARTING, f"its engine ended: {describe_exit(code)}"))
            self._on_event(ServiceEvent("ended", self.name, describe_exit(code)))
            tries = 0 if time.monotonic() - began > SETTLED_S else tries
            if tries == len(PAUSES_S):
                self._give_up("given-up", self.engine.exit_error(code), KEEPS_ENDING)
                return
            if self._stopping.wait(PAUSES_S[tries]) or not self._start_again():
                return
            tries += 1

    def _start_again(self) -> bool:
        try:
            self._recheck()
            self.start()
            self.wait_ready()
        except (DamagedError, NotTrustedError, DriftError) as error:
            self._give_up("incident", error, stop_reason(error))
            return False
        except OSError as error:
            self._give_up("given-up", unreadable(self.name, error), stop_reason(error))
            return False
        except ApplianceError as error:
            # The engine died while it loaded: the loop counts that as one more end.
            if self.engine is None or self.engine.child.poll() is None:
                self._give_up("given-up", error, KEEPS_ENDING)
                return False
        return True

    def _give_up(self, what: str, error: ApplianceError, reason: str) -> None:
        if self.engine is not None:
            self.engine.stop()
        self.error = error
        self._set_state(EngineState(STOPPED, reason))
        self._on_event(ServiceEvent(what, self.name, str(error), error))

    def _set_state(self, state: EngineState) -> None:
        # A full disk must not end an engine: the gateway gets the state in any case.
        with contextlib.suppress(OSError):
            write_state(self._socket, state)
        self._on_state(EngineEvent(self.name, state))


def unreadable(subject: str, error: OSError) -> DamagedError:
    """The error for a disk that does not give what was installed."""
    return DamagedError(
        "release.unreadable",
        subject,
        expected="files that can be read",
        found=str(error),
        hint="look at the disk; then run `appliance install SOURCE` again",
    )


def _describe(engine: Engine, status: str) -> EngineState:
    return EngineState(status, "", engine.level, engine.isolation, engine.child.program_pid or 0)
