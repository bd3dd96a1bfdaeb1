"""The program of the trial's unit: it watches a new release, and makes it good. Started by systemd:
`/opt/appliance/current/venv/bin/python -I -B -m appliance.serve.trial_unit`.

Owns the loop around `appliance.host.change.trial`. Rules:
- it ends with 7 where the release has failed; systemd then starts the return, which runs nothing of this release;
- it asks the gateway on loopback and the engines on their sockets, and no other machine;
- the commit waits for the lock of installs; a change that another command has begun meanwhile ends the watch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from appliance.clock import utc_now
from appliance.host.activation.health import Health
from appliance.host.activation.systemd_services import SystemdServices
from appliance.host.change.change_file import COMMITTING, INSTALL, TRYING, HostChange, read_change
from appliance.host.change.trial import TrialWatch, Verdict, begin_watch, note_ready, trial_failed
from appliance.host.install.commit import commit_release
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release, open_current
from appliance.host.site.config import site_trial
from appliance.serve.unit_programs import startup
from signing.errors import BusyError

POLL_S = 1.0


def watch(
    prefix: Prefix,
    observe: Callable[[], Health],
    commit: Callable[[HostChange], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Watch the release on trial to its end.

    Args:
        prefix: the host.
        observe: finds how the release is.
        commit: makes it good; may raise `BusyError`, and is then called again.
        clock: seconds that nobody sets.
        sleep: waits.

    Raises:
        ApplyRestoredError: the release has failed; the caller's end starts the return.
        DriftError: the record of the change cannot be read.
    """
    change = read_change(prefix)
    if change is not None and change.op == INSTALL and change.phase == COMMITTING:
        _commit_when_free(commit, change, sleep)
        return
    change = begin_watch(prefix)
    if change is None:
        return
    judge = TrialWatch(site_trial(prefix.site_file), clock())
    while True:
        health = observe()
        verdict = judge.observe(health, clock())
        found = read_change(prefix)
        if found is None or (found.op, found.phase, found.release) != (INSTALL, TRYING, change.release):
            return  # another command has superseded the trial
        if judge.was_ready and found.boots:
            note_ready(prefix, wait_s=0.0)
        if verdict is Verdict.BAD:
            raise trial_failed(change, judge.reason)
        if verdict is Verdict.GOOD:
            _commit_when_free(commit, change, sleep)
            return
        sleep(POLL_S)


def start(prefix: Prefix) -> None:
    """Watch the release that `current` names.

    Args:
        prefix: a whole machine.

    Raises:
        ApplyRestoredError: it has failed.
        ApplianceError: it cannot be opened. After a few tries that is a failure, too.
    """
    services, release = SystemdServices(prefix, utc_now), open_current(prefix, utc_now())
    watch(prefix, lambda: services.health(release), lambda change: _commit(release, change, services))


def _commit(release: Release, change: HostChange, services: SystemdServices) -> None:
    commit_release(release, change, services, utc_now)


def _commit_when_free(commit: Callable[[HostChange], None], change: HostChange, sleep: Callable[[float], None]) -> None:
    while True:
        try:
            commit(change)
        except BusyError:
            sleep(POLL_S)
        else:
            return


def main() -> int:
    """Entry point of the unit."""
    return startup.run(lambda: start(Prefix(Path("/"))))


if __name__ == "__main__":
    sys.exit(main())
