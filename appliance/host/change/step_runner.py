"""Running the steps of a change as data: in order, each in the journal, undone in reverse where one fails.

Owns `ChangeStep` and the runner; what an install's steps do is in `appliance.host.install`. A test generates a kill
before and after every step from the same data, so a new step cannot be left out of it.

Rules:
- a step is recorded as done after it was done, never before;
- when a step fails, the undo of it and of every step before it runs, in reverse order, up to a step that is final;
- nothing is undone after a step that is final: the change is then finished by the next run.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from appliance.host.change.journal import DONE, FAILED, STARTED, Journal
from appliance.host.process.programs import no_space
from bundles.medium import disk_full
from signing.errors import ApplianceError, ApplyRestoredError

BEFORE, AFTER = "before", "after"
OnBoundary = Callable[[str, str], None]
"""Called with the name of a step and `BEFORE` or `AFTER`: where a test ends the process."""


@dataclass(slots=True)
class StepRecord:
    """One step that was done: its name, how long it took in seconds, and a note for people."""

    step: str
    seconds: float = 0.0
    note: str = ""


S = TypeVar("S")


def undo_nothing(_state: object) -> None:
    """The undo of a step that changes nothing which serves, or which the next run uses."""


def always(_state: object) -> bool:
    """The condition of a step that every run has."""
    return True


@dataclass(frozen=True, slots=True)
class ChangeStep(Generic[S]):
    """One step of a change.

    Args:
        name: for the journal, people and tests; unique in its sequence.
        changes: what is different on the disk afterwards, in one line.
        run: does it, or finds that it is done; may set the record's note.
        undo: brings back what served before, when this step or a later one fails; can be repeated.
        is_needed: whether this run has the step.
        is_final: whether nothing is undone once this step has begun.
    """

    name: str
    changes: str
    run: Callable[[S, StepRecord], None]
    undo: Callable[[S], None] = undo_nothing
    is_needed: Callable[[S], bool] = always
    is_final: bool = False


def ignore_boundary(_step: str, _when: str) -> None:
    """The hook of a run that nobody interrupts."""


@dataclass(slots=True)
class StepRunner(Generic[S]):
    """Runs the steps of one change.

    Args:
        steps: in their order.
        state: what the steps share.
        journal: of the prefix.
        release: the release's folder name, for the journal.
        where: a path on the file system that is written to, for the error when it is full.
        undo_error: makes the error for an undo that failed, from the first error and that of the undo.
        on_boundary: called before and after each step.
        records: the steps that were done.
    """

    steps: Sequence[ChangeStep[S]]
    state: S
    journal: Journal
    release: str
    where: Path
    undo_error: Callable[[BaseException, ApplianceError | OSError], ApplianceError]
    on_boundary: OnBoundary = ignore_boundary
    records: list[StepRecord] = field(default_factory=list)

    def run(self) -> list[StepRecord]:
        """Run every step that is needed.

        Returns:
            The records of those that ran.

        Raises:
            ApplyRestoredError: the disk is full, and what served before serves.
            ApplianceError: as a step or `undo_error` raises; after a final step has begun, nothing was undone.
        """
        begun: list[ChangeStep[S]] = []
        try:
            for step in self.steps:
                if step.is_needed(self.state):
                    begun.append(step)
                    self._run(step)
        except BaseException as error:
            self._undo(begun, error)
            raise
        return self.records

    def _run(self, step: ChangeStep[S]) -> None:
        record = StepRecord(step.name)
        started = time.monotonic()
        self.on_boundary(step.name, BEFORE)
        try:
            self.journal.write(self.release, step.name, STARTED)
            step.run(self.state, record)
            record.seconds = time.monotonic() - started
            self.journal.write(self.release, step.name, DONE, record.note)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._failed(step, self._full(step)) from None
        except ApplianceError as error:
            raise self._failed(step, error if step.is_final else _as_apply_error(error)) from None
        self.records.append(record)
        self.on_boundary(step.name, AFTER)

    def _undo(self, begun: Sequence[ChangeStep[S]], first: BaseException) -> None:
        if any(step.is_final for step in begun):
            return
        failed: ApplianceError | OSError | None = None
        for step in reversed(begun):
            try:
                step.undo(self.state)
            except (ApplianceError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise self.undo_error(first, failed) from failed

    def _full(self, step: ChangeStep[S]) -> ApplianceError:
        # In a final step the new release serves already; before it, the old one does, and is restored.
        return disk_full(self.where, 0) if step.is_final else no_space(self.where, f"step {step.name}")

    def _failed(self, step: ChangeStep[S], error: ApplianceError) -> ApplianceError:
        # A full disk refuses this line, too; the error itself reports that.
        with suppress(OSError):
            self.journal.write(self.release, step.name, FAILED, error.code)
        return error


def _as_apply_error(error: ApplianceError) -> ApplianceError:
    if error.code != "disk.full" or isinstance(error, ApplyRestoredError):
        return error
    return ApplyRestoredError(
        error.code, error.subject, expected=error.expected, found=error.found, hint=error.hint, others=error.others
    )
