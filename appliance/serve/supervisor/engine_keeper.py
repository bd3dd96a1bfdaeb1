"""Keeping one engine alive: verify, start, wait, and again when it ends.

Owns the life of one model's engine. Rules:
- every start verifies the model and the program again; nothing is believed because it was right before;
- a model or program whose bytes changed is an incident: that model stays stopped, and the others serve on;
- an engine that keeps ending is given up after a few tries, each later than the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from appliance.host.engine.process import Engine, start_engine
from appliance.host.process.child import describe_exit
from appliance.serve.gateway.messages import RESTARTING, SERVING, STOPPED, News
from appliance.serve.supervisor.launch import Served
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, DamagedError, DriftError, NotTrustedError

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new try. An engine that has served for `SETTLED_S` begins again with the first."""
SETTLED_S = 600.0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that people may want to know.

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


Tell = Callable[[Happening], None]


class Keeper:
    """Keeps one engine.

    Args:
        served: the model and its engine.
        run_dir: a private folder for the socket.
        log: of the engine.
        recheck: compares program, libraries and configuration with what was signed; raises as `check_release`.
        tell: gets what happens; called from the keeper's thread.
        report: gets news for the gateway; called from the keeper's thread.
    """

    def __init__(
        self,
        served: Served,
        run_dir: Path,
        log: Path,
        recheck: Callable[[], None],
        tell: Tell,
        report: Callable[[News], None],
    ) -> None:
        self.served = served
        self.engine: Engine | None = None
        self.error: ApplianceError | None = None
        self._run_dir, self._log = run_dir, log
        self._recheck, self._tell, self._report = recheck, tell, report
        self._stopping = Flag()
        self._thread: Thread | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.served.model.name

    @property
    def is_kept(self) -> bool:
        """Whether somebody watches the engine."""
        return self._thread is not None and self._thread.is_alive()

    def open(self, on_progress: OnProgress = ignore) -> None:
        """Verify the model and start its engine, which then loads.

        Raises:
            ApplianceError: as `start_engine`.
        """
        self.engine = start_engine(self.served.spec, self._run_dir, self._log, on_progress)

    def settle(self) -> None:
        """Wait until the engine answers, and tell so.

        Raises:
            ApplianceError: as `Engine.wait_ready`.
        """
        assert self.engine is not None  # opened before
        began = time.monotonic()
        self.engine.wait_ready()
        self._report(News(self.name, SERVING, self.engine.level, self.engine.isolation))
        detail = f"level {self.engine.level}, isolation {self.engine.isolation}, {time.monotonic() - began:.1f} s"
        self._tell(Happening("ready", self.name, detail))

    def keep(self) -> None:
        """Watch the engine from now on, in a thread of its own."""
        self._thread = Thread(target=self._keep, name=f"keeper of {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the engine, and the watching. Safe to call twice."""
        self._stopping.set()
        if self.engine is not None:
            self.engine.stop()
        if self._thread is not None:
            self._thread.join()
            if self.engine is not None:
                self.engine.stop()  # it may have been started anew while this waited

    def _keep(self) -> None:
        tries = 0
        while self.engine is not None:
            began = time.monotonic()
            code = self.engine.child.wait()
            if self._stopping.is_set():
                return
            self._report(News(self.name, RESTARTING))
            self._tell(Happening("ended", self.name, describe_exit(code)))
            tries = 0 if time.monotonic() - began > SETTLED_S else tries
            if tries == len(PAUSES_S):
                self._give_up("given-up", self.engine.exit_error(code))
                return
            if self._stopping.wait(PAUSES_S[tries]) or not self._again():
                return
            tries += 1

    def _again(self) -> bool:
        try:
            self._recheck()
            self.open()
            self.settle()
        except (DamagedError, NotTrustedError, DriftError) as error:
            self._give_up("incident", error)
            return False
        except OSError as error:
            self._give_up("given-up", unreadable(self.name, error))
            return False
        except ApplianceError as error:
            # The engine died while it loaded: the loop counts that as one more end.
            if self.engine is None or self.engine.child.poll() is None:
                self._give_up("given-up", error)
                return False
        return True

    def _give_up(self, what: str, error: ApplianceError) -> None:
        if self.engine is not None:
            self.engine.stop()
        self.error = error
        reason = "its bytes are not the signed ones" if what == "incident" else "its engine keeps ending"
        self._report(News(self.name, STOPPED, reason=reason))
        self._tell(Happening(what, self.name, str(error), error))


def unreadable(subject: str, error: OSError) -> DamagedError:
    """The error for a disk that does not give what was installed."""
    return DamagedError(
        "release.unreadable",
        subject,
        expected="files that can be read",
        found=str(error),
        hint="look at the disk; then run `appliance install SOURCE` again",
    )
