"""What keeps a release running after the install: nothing below a prefix, systemd on a whole machine.

Owns the difference between the two, so that the install's steps need not know it. A prefix has no services: its
engines are tried as children of the install, and `appliance serve` runs them in the foreground.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from appliance.host.activation.candidate import try_candidate
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from bundles.progress import OnProgress


class Services(Protocol):
    """What the install needs of whatever keeps releases running."""

    def try_candidate(self, release: Release, on_progress: OnProgress) -> str:
        """Start the engines of a release that is not switched to yet, and ask each.

        Returns:
            What the last model answered.

        Raises:
            ApplyRestoredError: an engine did not start or answer; those of this release were ended again.
        """

    def enable(self, release: Release) -> None:
        """Let a release serve after every boot at which `current` names it."""

    def follow(self, release: Release) -> bool:
        """Let what `current` names serve now, and wait until users reach it; what serves already is left alone.

        Returns:
            Whether a service was started for this, which has then compared every installed file but the models itself.

        Raises:
            ApplianceError: they do not.
        """

    def retire(self, release: Release) -> None:
        """End what belongs to other releases than the one that serves."""

    def restore(self, before: Path | None, tried: Path) -> None:
        """Take back what was begun for a release.

        Args:
            before: the folder of the release that `current` names again; None where there was none.
            tried: of the release that failed; may be the same, with its old configuration put back.
        """


class NoServices:
    """Below a prefix.

    Args:
        programs: starts the engines for their trial.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def try_candidate(self, release: Release, on_progress: OnProgress) -> str:
        """See `Services.try_candidate`."""
        return try_candidate(release, self._programs, on_progress)

    def enable(self, release: Release) -> None:
        """Nothing runs by itself."""

    def follow(self, release: Release) -> bool:
        """Nothing runs by itself."""
        return False

    def retire(self, release: Release) -> None:
        """Nothing runs by itself."""

    def restore(self, before: Path | None, tried: Path) -> None:
        """Nothing was begun."""
