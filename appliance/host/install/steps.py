"""The steps of an install, in order, each recorded before and after.

Owns their names, the journal's lines and the times. What a step does, and whether it still has to be done, is in
`appliance.host.install.installation`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.install.journal import DONE, FAILED, LAST, STARTED, Journal
from appliance.host.process.programs import no_space
from bundles.medium import disk_full
from signing.errors import ApplianceError, ApplyRestoredError

STEPS = (
    "plan",
    "preflight",
    "import",
    "packages",
    "bootstrap",
    "environment",
    "runtime",
    "render",
    "candidate",
    "switch",
    "gate",
    "commit",
)
"""In the order in which they run."""


@dataclass(slots=True)
class StepRecord:
    """One step that was done: its name, how long it took in seconds, and what there was to say."""

    step: str
    seconds: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Steps:
    """Runs steps for one release.

    Args:
        journal: of the prefix.
        release: the release's folder name.
        where: a path on the file system that is being filled, for the error when it is full.
    """

    journal: Journal
    release: str
    where: Path
    took: list[StepRecord] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[StepRecord]:
        """Run one step in a `with` block.

        Yields:
            Its record, whose `note` the block may set.

        Raises:
            ApplyRestoredError: the disk is full; nothing half-made is visible.
            ApplianceError: the disk is full in the last step, when the new release serves already.
        """
        assert name in STEPS
        took = StepRecord(name)
        started = time.monotonic()
        try:
            self.journal.write(self.release, name, STARTED)
            yield took
            took.seconds = time.monotonic() - started
            self.journal.write(self.release, name, DONE, took.note)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._failed(name, self._full(name)) from None
        except ApplianceError as error:
            raise self._failed(name, error if name == LAST else _as_apply_error(error)) from None
        self.took.append(took)

    def _full(self, name: str) -> ApplianceError:
        # Before the last step, what served before serves; then the new release does, and nothing was restored.
        return disk_full(self.where, 0) if name == LAST else no_space(self.where, f"step {name}")

    def _failed(self, name: str, error: ApplianceError) -> ApplianceError:
        # A full disk refuses this line, too; the error itself says it.
        with suppress(OSError):
            self.journal.write(self.release, name, FAILED, error.code)
        return error


def _as_apply_error(error: ApplianceError) -> ApplianceError:
    if error.code != "disk.full" or isinstance(error, ApplyRestoredError):
        return error
    return ApplyRestoredError(
        error.code, error.subject, expected=error.expected, found=error.found, hint=error.hint, others=error.others
    )
