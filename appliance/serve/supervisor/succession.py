"""A switch under `appliance serve`: the release that `current` names follows the one that runs, on the same port.

Owns when a running release is replaced, and the order in which that happens. Rules:
- the new release is compared with what was signed before anything of it starts, as at a start of `appliance serve`;
- its engines start beside those that serve where the memory holds both. Else those end first, and requests get 503 with
  `Retry-After` in this window;
- both gateways listen on one socket until the new one answers: nobody is refused, and no answer ends without an error;
- where the new release does not serve, the one before goes on, and it is not tried again until `current` changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from appliance.host.activation.health import Health
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.models.switch_memory import WINDOW, judge_switch
from appliance.host.preflight.serving import release_workloads
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.release.release_check import check_release
from appliance.serve.supervisor import run_dir
from appliance.serve.supervisor.launch_plan import Launch, measured_threads, read_launch
from appliance.serve.supervisor.service import Service
from appliance.serve.supervisor.service_event import FOLLOWED, KEPT, OnServiceEvent, ServiceEvent
from appliance.serve.supervisor.trial_keeper import TrialKeeper
from bundles.progress import ignore
from signing.errors import ApplianceError


class Succession:
    """Keeps the release serving that `current` names.

    Args:
        service: runs.
        make: makes the service of another release, from its launch and a folder for its sockets.
        now: the clock, in UTC.
        on_event: called with what an operator may want to know.
        on_change: called after each switch.
        trial: watches a release on trial.
    """

    def __init__(
        self,
        service: Service,
        make: Callable[[Launch, Path], Service],
        now: Callable[[], datetime],
        on_event: OnServiceEvent,
        on_change: Callable[[], None],
        trial: TrialKeeper | None = None,
    ) -> None:
        self.service = service
        self._make, self._now, self._on_event, self._on_change = make, now, on_event, on_change
        self._trial = trial or TrialKeeper(self._prefix, now, on_event)
        self._refused: str | None = None

    @property
    def _prefix(self) -> Prefix:
        return self.service.launch.release.prefix

    def wait(self) -> None:
        """Serve until the gateway fails or no model has its signed bytes.

        Raises:
            ApplianceError: why nothing is left.
        """
        while True:
            try:
                self.service.wait(self._is_over)
            except ApplianceError as error:
                # A release on trial has failed for good: the one before serves again.
                if not self._trial.give_up(str(error)):
                    raise
            self.follow()

    def health(self, name: str) -> Health:
        """How the release of a folder's name is: the one that runs, or one that is to follow it."""
        if self.service.launch.release.path.name == name:
            return self.service.health()
        refused = (self._refused or "").rpartition("/")[2]
        return Health.FAILED if name == refused else Health.WAITING

    def _is_over(self) -> bool:
        self._trial.poll(self.service.launch.release, self.health)
        return self.is_due()

    def stop(self) -> None:
        """End what runs."""
        self.service.stop()

    def is_due(self) -> bool:
        """Whether `current` names another release than the one that serves, and that was not refused."""
        target = None
        with suppress(ApplianceError, OSError):
            target = current_target(self._prefix)
        if target is None or target == str(self.service.launch.release.path.relative_to(self._prefix.opt)):
            self._refused = None
            return False
        return target != self._refused

    def follow(self) -> bool:
        """Let the release serve that `current` names.

        Returns:
            Whether it serves now; else the one before does.

        Raises:
            ApplianceError: the release before had made room, and does not start again.
        """
        target, before = current_target(self._prefix), self.service
        made: Service | None = None
        try:
            release = open_current(self._prefix, self._now())
            check_release(release, models=False)
            made = self._make(read_launch(release, lambda: measured_threads(release)), run_dir.make_sockets())
            if self._needs_window(release):
                before.make_room()
            made.start_engines(ignore)
            made.gateway.start()
        except (ApplianceError, OSError) as error:
            if made is not None:
                _end(made)
            before.fill_room()
            self._refused = target
            hint = error.hint if isinstance(error, ApplianceError) else ""
            self._on_event(ServiceEvent(KEPT, before.label, str(error), hint))
            return False
        self.service = made
        self._on_change()
        _end(before)
        self._on_event(ServiceEvent(FOLLOWED, made.label))
        return True

    def _needs_window(self, release: Release) -> bool:
        card = probe_essentials(self._now(), lambda _command: "")
        serving = release_workloads(self.service.launch.release)
        return judge_switch(serving, release_workloads(release), card).way == WINDOW


def _end(service: Service) -> None:
    service.stop()
    run_dir.remove_sockets(service.sockets)
