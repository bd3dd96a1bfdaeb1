"""A release on trial below a prefix: `appliance serve` watches it, makes it good, or has the host return.

Owns what the units of the trial, the return and the recovery do on a whole machine. Rules:
- the judgement is that of `appliance.host.change.trial`; the return is the script of `rollback`, as everywhere;
- an error that is no fault of the release returns nothing: another process that serves, a port that is taken;
- a switch that was cut off is undone before anything starts, unless its install is still at work.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from appliance.host.activation.health import Health
from appliance.host.activation.services import NoServices
from appliance.host.change.change_file import COMMITTING, INSTALL, SWITCHING, TRYING, HostChange, read_change
from appliance.host.change.rollback_program import rollback_program
from appliance.host.change.trial import TrialWatch, Verdict, begin_watch, note_ready
from appliance.host.install.commit import commit_release
from appliance.host.layout.prefix import Prefix
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from appliance.host.site.config import site_trial
from appliance.serve.supervisor.service_event import GOOD, RETURNED, OnServiceEvent, ServiceEvent
from signing.errors import ApplianceError, BusyError, HostUnfitError, UsageError

POLL_S = 1.0
RETURN_S = 60.0
"""The longest time of a return; below a prefix it renames links and copies a few small files."""


class TrialKeeper:
    """Watches the release on trial of one prefix.

    Args:
        prefix: the host.
        now: the clock, in UTC, for records.
        on_event: called with what an operator may want to know.
        clock: seconds that nobody sets.
    """

    def __init__(
        self,
        prefix: Prefix,
        now: Callable[[], datetime],
        on_event: OnServiceEvent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefix, self._now, self._on_event, self._clock = prefix, now, on_event, clock
        self._watched = ""
        self._judge: TrialWatch | None = None
        self._last = -POLL_S

    def poll(self, release: Release, find_health: Callable[[str], Health]) -> None:
        """Observe the release on trial, at most once a second, and do what follows.

        Args:
            release: the one that runs here.
            find_health: how the release of a folder's name is.
        """
        if self._clock() - self._last < POLL_S:
            return
        self._last = self._clock()
        try:
            self._observe(release, find_health)
        except ApplianceError as error:
            self.give_up(str(error))
        except OSError:
            # A full or failing disk is no fault of the release, and users go on: the next poll tries again.
            return

    def _observe(self, release: Release, find_health: Callable[[str], Health]) -> None:
        change = read_change(self._prefix)
        if change is None or change.op != INSTALL or change.phase not in (TRYING, COMMITTING):
            self._judge = None
            return
        if change.phase == COMMITTING:
            self._commit(release, change)
            return
        if self._judge is None or self._watched != change.release:
            self._watched, self._judge = change.release, TrialWatch(site_trial(self._prefix.site_file), self._clock())
            begin_watch(self._prefix, wait_s=0.0)
        verdict = self._judge.observe(find_health(change.release), self._clock())
        if self._judge.was_ready and change.boots:
            note_ready(self._prefix, wait_s=0.0)
        if verdict is Verdict.BAD:
            self.give_up(self._judge.reason)
        elif verdict is Verdict.GOOD and release.path.name == change.release:
            self._commit(release, change)

    def give_up(self, reason: str) -> bool:
        """Return to the release before, where one is on trial.

        Args:
            reason: for people.

        Returns:
            Whether the host returned: `current` names the release before.
        """
        with suppress(ApplianceError):
            change = read_change(self._prefix)
            if change is not None and change.is_trying and _run_script(self._prefix, "--return"):
                self._judge = None
                self._on_event(ServiceEvent(RETURNED, change.before, f"{change.release}: {reason}"))
                return True
        return False

    def _commit(self, release: Release, change: HostChange) -> None:
        services = NoServices(Programs(self._prefix.scratch, -1))
        with suppress(BusyError):  # an install is at work; what it does decides
            if commit_release(release, change, services, self._now):
                self._judge = None
                self._on_event(ServiceEvent(GOOD, change.release))


def is_fault_of_release(error: ApplianceError) -> bool:
    """Whether an error at a start speaks against the release, and not against this moment or this machine."""
    return not isinstance(error, (BusyError, HostUnfitError, UsageError))


def undo_cut_off_switch(prefix: Prefix) -> bool:
    """Undo a switch that was cut off, as a boot does on a whole machine.

    Args:
        prefix: the host.

    Returns:
        Whether one was undone; an install that is still at work is left alone.

    Raises:
        DriftError: the record of the change cannot be read.
    """
    change = read_change(prefix)
    return change is not None and change.phase == SWITCHING and _run_script(prefix, "--recover")


def _run_script(prefix: Prefix, option: str) -> bool:
    try:
        done = subprocess.run(
            ["/bin/sh", rollback_program(prefix), option],
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RETURN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
