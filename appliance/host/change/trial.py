"""The trial of a new release: how long it must be healthy until it is good, and what ends it early.

Owns the judgement, and the fields of the record that it needs. What is healthy is for the caller: the unit of the trial
on a whole machine, `appliance serve` below a prefix. Only loopback and sockets are asked, so no cable decides anything.

Rules:
- time is that of a clock which nobody sets; a gap in the observation, as in a suspended machine, does not count;
- an ordinary restart of the machine begins the time of health anew, and returns nothing;
- services that a person has stopped end nothing: while they are stopped no time counts;
- a release fails when a service has given up, or when it is not ready in time;
- it also fails when `MAX_STARTS` starts in a row have never become ready.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum

from appliance.host.activation.health import Health
from appliance.host.change.change_file import INSTALL, TRYING, HostChange, read_change, write_change
from appliance.host.layout.install_lock import WAIT_S, hold
from appliance.host.layout.prefix import Prefix
from appliance.host.site.config import Trial
from signing.errors import ApplyRestoredError, BusyError

MAX_STARTS = 5
MAX_GAP_S = 30.0
"""The longest time between two observations that counts."""


class Verdict(Enum):
    """What follows from the observations so far."""

    GOES_ON = "goes on"
    GOOD = "good"
    BAD = "bad"


@dataclass(slots=True)
class TrialWatch:
    """Judges a release by a series of observations.

    Args:
        trial: the site's times.
        began: when the services were started, in seconds of a clock that nobody sets.
    """

    trial: Trial
    began: float
    reason: str = ""
    was_ready: bool = False
    _last: float = field(init=False)
    _healthy: float = 0.0
    _waited: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.began

    def observe(self, health: Health, now: float) -> Verdict:
        """Take one observation into account.

        Args:
            health: what was found.
            now: seconds of the same clock.
        """
        passed = min(max(0.0, now - self._last), MAX_GAP_S)
        self._last = now
        if health is Health.FAILED:
            self.reason = self.reason or "a service of the release has given up"
            return Verdict.BAD
        if health is Health.READY:
            self._healthy = self._healthy + passed if self._waited == 0 else 0.0
            self._waited, self.was_ready = 0.0, True
            return Verdict.GOOD if self._healthy >= self.trial.good_after else Verdict.GOES_ON
        if health is Health.WAITING:
            self._healthy = 0.0
            self._waited += passed
            if self._waited > self.trial.ready_within:
                self.reason = f"not ready within {self.trial.ready_within} s"
                return Verdict.BAD
        return Verdict.GOES_ON


def begin_watch(prefix: Prefix, wait_s: float = WAIT_S) -> HostChange | None:
    """Count one more start of a release on trial, durably.

    A start is not counted while another command changes the host, or where the disk takes no record.

    Args:
        prefix: the host.
        wait_s: how long to wait for another command.

    Returns:
        The record of the trial; None where no release is on trial.

    Raises:
        ApplyRestoredError: too many starts in a row have never become ready.
        DriftError: the record cannot be read.
    """
    change = _edit(prefix, lambda change: replace(change, boots=min(change.boots + 1, 999_999)), wait_s)
    if change is not None and change.boots > MAX_STARTS:
        raise trial_failed(change, f"{MAX_STARTS} starts in a row that never became ready")
    return change


def note_ready(prefix: Prefix, wait_s: float = WAIT_S) -> None:
    """Forget the starts that were counted: the release has become ready; see `begin_watch`."""
    _edit(prefix, lambda change: replace(change, boots=0), wait_s)


def _edit(prefix: Prefix, edit: Callable[[HostChange], HostChange], wait_s: float) -> HostChange | None:
    """Change the record of a trial under the lock, so that it never replaces that of another command."""
    change = _on_trial(prefix)
    if change is None or edit(change) == change:
        return change
    with suppress(BusyError, OSError), hold(prefix, wait_s):
        change = _on_trial(prefix)
        if change is not None:
            write_change(prefix, edit(change))
            change = edit(change)
    return change


def _on_trial(prefix: Prefix) -> HostChange | None:
    change = read_change(prefix)
    return change if change is not None and change.op == INSTALL and change.phase == TRYING else None


def trial_failed(change: HostChange, found: str) -> ApplyRestoredError:
    """The error of a release that failed its trial."""
    return ApplyRestoredError(
        "trial.failed",
        change.release,
        expected="a release that users reach for the time of the trial",
        found=found,
        hint=f"{change.before} serves again; show this to the person who built the bundle",
    )
