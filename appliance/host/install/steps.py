"""The steps of an install, in order, each written to the journal when it begins and when it ends.

Owns the names of the steps, their lines in the journal and their times. What a step does, and whether it has to be
done, is in `appliance.host.install.install`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.change.journal import DONE, FAILED, LAST, STARTED, Journal
from appliance.host.change.step_runner import StepRecord
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
class Steps:
    """Runs steps for one release.

    Args:
        journal: of the prefix.
        release: the release's folder name.
        where: a path on the file system that the install writes to, for the error when it is full.
    """

    journal: Journal
    release: str
    where: Path
    records: list[StepRecord] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[StepRecord]:
        """Run one step in a `with` block.

        Args:
            name: one of `STEPS`.

        Yields:
            Its record, whose `note` the block may set.

        Raises:
            ApplyRestoredError: the disk is full, and no incomplete file has a final name.
            ApplianceError: the disk is full in the last step, when the new release already serves.
        """
        assert name in STEPS
        record = StepRecord(name)
        started = time.monotonic()
        try:
            self.journal.write(self.release, name, STARTED)
            yield record
            record.seconds = time.monotonic() - started
            self.journal.write(self.release, name, DONE, record.note)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._failed(name, self._full(name)) from None
        except ApplianceError as error:
            raise self._failed(name, error if name == LAST else _as_apply_error(error)) from None
        self.records.append(record)

    def _full(self, name: str) -> ApplianceError:
        # In the last step the new release serves already; before it, the old one does, and is restored.
        return disk_full(self.where, 0) if name == LAST else no_space(self.where, f"step {name}")

    def _failed(self, name: str, error: ApplianceError) -> ApplianceError:
        # A full disk refuses this line, too; the error itself reports that.
        with suppress(OSError):
            self.journal.write(self.release, name, FAILED, error.code)
        return error


def _as_apply_error(error: ApplianceError) -> ApplianceError:
    if error.code != "disk.full" or isinstance(error, ApplyRestoredError):
        return error
    return ApplyRestoredError(
        error.code, error.subject, expected=error.expected, found=error.found, hint=error.hint, others=error.others
    )
