"""The services that keep a release running after the install: units of systemd on a whole machine, none below a prefix.

Owns the interface that the install's steps call, and the implementation for a prefix. There the engines are tried as
children of the install, and `appliance serve` runs them in the foreground.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from appliance.host.activation.candidate import try_candidate
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from bundles.progress import OnProgress


class Services(Protocol):
    """What an install needs of the program that keeps releases running."""

    def make_room(self, release: Release) -> None:
        """End the engines that serve, for a release that the memory does not hold beside them.

        Requests get 503 with `Retry-After` until `follow`, `end_candidate` or `restore`.

        Args:
            release: the one whose engines are about to start; its own go on.
        """

    def try_candidate(self, release: Release, on_progress: OnProgress) -> str:
        """Start the engines of a release before the switch to it, and check the answer of each.

        Args:
            release: complete, but not switched to.
            on_progress: called with the models done.

        Returns:
            The answer of the last model.

        Raises:
            ApplyRestoredError: an engine did not start or answer.
        """

    def end_candidate(self, release: Release) -> None:
        """Stop the engines of a release that was tried and that waits for the switch."""

    def watch(self) -> None:
        """Start the watch of the release on trial."""

    def enable(self, release: Release) -> None:
        """Have a release serve after every boot, as long as `current` names it."""

    def follow(self, release: Release) -> bool:
        """Start the services of the release that `current` names, and wait until users reach it.

        Services that run already are left alone.

        Returns:
            Whether the gateway was started; it then has compared every installed file but the models.

        Raises:
            ApplianceError: users do not reach it in time, or a service has ended.
        """

    def retire(self, release: Release) -> None:
        """Stop the engines of all releases but the one that serves."""

    def restore(self, before: Path | None, tried: Path) -> None:
        """Stop the services of a release that failed, and start those of the release before.

        Args:
            before: the folder of the release that `current` names again; None where there was none.
            tried: the folder of the release that failed; may be the same, with its old configuration restored.

        Raises:
            ApplianceError: the release before does not serve again.
        """


class NoServices:
    """The implementation below a prefix, where no services run.

    Args:
        programs: holds the folder for the logs of tried engines.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def make_room(self, release: Release) -> None:
        """Nothing runs by itself: `appliance serve` makes room when it follows `current`."""

    def try_candidate(self, release: Release, on_progress: OnProgress) -> str:
        """See `Services.try_candidate`."""
        return try_candidate(release, self._programs, on_progress)

    def end_candidate(self, release: Release) -> None:
        """The engines have ended with the trial."""

    def watch(self) -> None:
        """`appliance serve` watches."""

    def enable(self, release: Release) -> None:
        """Nothing runs by itself."""

    def follow(self, release: Release) -> bool:
        """Nothing runs by itself."""
        return False

    def retire(self, release: Release) -> None:
        """Nothing runs by itself."""

    def restore(self, before: Path | None, tried: Path) -> None:
        """Nothing has been started."""
