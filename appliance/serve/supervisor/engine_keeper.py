"""Keeps one engine running: verifies, starts, waits for its end, and starts it again.

Owns the life of one model's engine under `appliance serve`. Rules:
- every start verifies the model and the program again, whatever was right before;
- a model or program whose bytes changed is an incident: that model stays stopped, and the others serve on;
- an engine that the kernel ended by SIGBUS, or whose file cannot be read, is one, too. It is recorded, and nothing
  starts that model until an install has repaired it;
- an engine that ends too often is given up (`appliance.host.engine.crashes`); each new try comes later than the one
  before. Gateway and other models go on;
- each change of the engine's state is written beside its socket, and sent to the gateway.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from appliance.clock import utc_now
from appliance.host.engine.crashes import CRASHED, MAX_CRASHES, recent_crashes
from appliance.host.engine.end_request import EndListener, end_path
from appliance.host.engine.process import Engine, socket_path, start_engine
from appliance.host.engine.state import (
    LEVEL_TOO_LOW,
    NO_ANSWER,
    RESTARTING,
    SERVING,
    STARTING,
    STOPPED,
    EngineState,
    state_file,
    stop_reason,
    write_state,
)
from appliance.host.layout.prefix import Prefix
from appliance.host.models.engine_fault import end_incident
from appliance.host.models.incident import Incident, read_incident, record_incident, refuse_incident
from appliance.host.models.levels import LEVEL_CODE
from appliance.host.process.child import describe_exit
from appliance.serve.gateway.messages import EngineEvent
from appliance.serve.supervisor.launch_plan import ServedModel
from appliance.serve.supervisor.service_event import (
    ENDED,
    GIVEN_UP,
    INCIDENT,
    READY,
    UNREADABLE,
    OnServiceEvent,
    ServiceEvent,
)
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before each new try, by the crashes that count; after the last of `MAX_CRASHES` there is no other try."""


class EngineKeeper:
    """Keeps one engine running.

    Args:
        served: the model and its engine.
        run_dir: a private folder for the socket.
        log: of the engine.
        recheck: compares program, libraries and configuration with what was signed; raises as `check_release`.
        on_event: called with what an operator may want to know, from the keeper's thread.
        on_state: called with each new state of the engine, from the keeper's thread.
        prefix: the host, whose records of incidents are read and written.
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
    ) -> None:
        self.served = served
        self.engine: Engine | None = None
        self.error: ApplianceError | None = None
        self.is_stopped = False
        self._run_dir, self._log = run_dir, log
        self._recheck, self._on_event, self._on_state = recheck, on_event, on_state
        self._prefix = prefix
        self._status = ""
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._ending: EndListener | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.served.model.name

    @property
    def is_ready(self) -> bool:
        """Whether the engine has answered, and has not ended since."""
        return self._status == SERVING

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
            DriftError: an incident is recorded for its file.
            ApplianceError: as `start_engine`.
        """
        self._launch(on_progress)

    def _launch(self, on_progress: OnProgress) -> None:
        refuse_incident(self._prefix, self.served.spec.file, self.name)
        self._set_state(EngineState(STARTING, pid=os.getpid()))
        self.engine = start_engine(self.served.spec, self._run_dir, self._log, on_progress)
        if self._ending is None:
            self._ending = EndListener(self._socket, self._end_engine)
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
        self._on_event(ServiceEvent(READY, self.name, detail))

    def watch(self) -> None:
        """Watch the engine from now on, in a thread of its own."""
        self._thread = Thread(target=self._watch, name=f"keeper of {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the engine and the watching, and remove the state. Safe to call twice."""
        self._stopping.set()
        if (engine := self.engine) is not None:
            engine.stop()
        if self._thread is not None:
            self._thread.join()
            if (engine := self.engine) is not None:
                engine.stop()  # it may have been started again while this waited
        if self._ending is not None:
            self._ending.close()
            self._ending = None
            end_path(self._socket).unlink(missing_ok=True)
        state_file(self._socket).unlink(missing_ok=True)

    def _watch(self) -> None:
        crashes: tuple[float, ...] = ()
        while (code := self._wait_end()) is not None:
            if self._stopping.is_set():
                return
            now = time.monotonic()
            crashes = recent_crashes((*crashes, now), now)
            how = describe_exit(code)
            if (found := self._find_incident(code)) is not None:
                self.stop_for(found.error())
                return
            if len(crashes) == MAX_CRASHES:
                self._give_up(CRASHED, f"{CRASHED}, the last with {how}")
                return
            self._set_state(EngineState(RESTARTING, f"its engine ended: {how}"))
            self._on_event(ServiceEvent(ENDED, self.name, how))
            if self._stopping.wait(PAUSES_S[len(crashes) - 1]) or not self._start_again():
                return

    def _wait_end(self) -> int | None:
        """Wait until the engine ends; None where there is none to watch."""
        return None if self.engine is None else self.engine.child.wait()

    def _start_again(self) -> bool:
        try:
            self._recheck()
            self._launch(ignore)
            self.wait_ready()
        except (DamagedError, NotTrustedError, DriftError) as error:
            self.stop_for(error)
            return False
        except OSError as error:
            self.stop_for(unreadable(self.name, error), UNREADABLE, stop_reason(error))
            return False
        except ApplianceError as error:
            if error.code == LEVEL_CODE:
                self._give_up(LEVEL_TOO_LOW, error.found)
                return False
            # The engine died while it loaded: the loop counts that as one more end.
            if self.engine is None or self.engine.child.poll() is None:
                self._give_up(NO_ANSWER, NO_ANSWER)
                return False
        return True

    def _find_incident(self, code: int) -> Incident | None:
        spec = self.served.spec
        found = read_incident(self._prefix, spec.file.sha256, self.name)
        if found is None:
            found = end_incident(self.name, spec.file.sha256, spec.store, code, utc_now())
            if found is not None:
                with contextlib.suppress(OSError):  # the keeper stops it in any case
                    record_incident(self._prefix, found)
        return found

    def _give_up(self, reason: str, detail: str) -> None:
        """Stop a model whose bytes are right: what else is served goes on."""
        self._stop_engine(reason)
        step = f"see its log ({self._log}), then end `appliance serve` and start it again"
        self._on_event(ServiceEvent(GIVEN_UP, self.name, detail, step))

    def stop_for(self, error: ApplianceError, what: str = INCIDENT, reason: str = "") -> None:
        """Stop a model whose bytes are not right or not there; the others serve on.

        Args:
            error: what is wrong.
            what: of the event.
            reason: for its users; empty where the error has it.
        """
        self.error = error
        self._stop_engine(reason or stop_reason(error))
        self._on_event(ServiceEvent(what, self.name, str(error), error.hint, error))

    def _stop_engine(self, reason: str) -> None:
        if self.engine is not None:
            self.engine.stop()
        self.is_stopped = True
        self._set_state(EngineState(STOPPED, reason))

    def _end_engine(self) -> None:
        """End an engine that is silent; the watching then starts it again."""
        if self.engine is not None:
            self.engine.child.kill()

    def _set_state(self, state: EngineState) -> None:
        self._status = state.status
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
