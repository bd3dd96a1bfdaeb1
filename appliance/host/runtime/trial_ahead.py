"""The measurements of a trial, made in a thread while the environment of the release is built.

Owns the thread and its end. Both take seconds and use one core each: measuring needs no environment. What needs it, the
comparison of results, is left to `appliance.host.runtime.extraction`.

Rules:
- `stop` ends the thread and every program that it started, so that nothing writes into a release after an install;
- an error of the thread is raised where its result is asked for, in the step that owns the trial.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from appliance.host.process.child import NETNS, Child
from appliance.host.process.programs import Programs
from appliance.host.runtime.variant_choice import Measured
from signing.errors import ApplianceError


class StoppablePrograms(Programs):
    """Programs of one thread, which another thread can end.

    Args:
        programs: whose folder and lock they use.
    """

    def __init__(self, programs: Programs) -> None:
        super().__init__(programs.scratch, programs.lock)
        self._guard, self._is_stopped = Lock(), False
        self._child: Child | None = None

    def start(self, *arguments: Any, **options: Any) -> Child:
        """Start a program; see `Programs.start`.

        Raises:
            ApplianceError: `stop` was called.
        """
        with self._guard:
            if self._is_stopped:
                raise ApplianceError("trial.stopped", "the trial", expected="an install that goes on", found="its end")
            self._child = super().start(*arguments, **options)
            return self._child

    def stop(self) -> None:
        """End the program that runs, and start no other."""
        with self._guard:
            self._is_stopped = True
        if self._child is not None:
            self._child.kill()


class TrialAhead:
    """A trial whose measurements are under way.

    Args:
        programs: of the install.
        work: makes the measurements with the programs that it gets.
    """

    def __init__(self, programs: Programs, work: Callable[[Programs], Measured]) -> None:
        self._install, self._programs, self._work = programs, StoppablePrograms(programs), work
        self._found: Future[Measured] = Future()
        self._thread = Thread(target=self._run, name="trial of CPU variants", daemon=True)
        self._thread.start()

    def result(self) -> Measured:
        """Wait for the measurements.

        Raises:
            ApplianceError, OSError: why there are none.
        """
        found = self._found.result()
        if self._programs.isolation != NETNS:
            self._install.isolation = self._programs.isolation
        return found

    def stop(self) -> None:
        """End the trial, whatever it does. Safe to call twice, and after `result`."""
        self._programs.stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._found.set_result(self._work(self._programs))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._found.set_exception(error)
