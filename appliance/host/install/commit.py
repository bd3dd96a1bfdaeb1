"""The commit: what closes the way back after a release has become good.

Owns its order. The record of the change is in the phase `committing` before it begins, so nothing goes back by itself.
A commit that was cut off is done again from its begin.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from appliance.host.activation.services import Services
from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    SWITCHING,
    HostChange,
    clear_change,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.change.journal import DONE, LAST, STARTED, Journal
from appliance.host.change.way_back import free_reserve, keep_reserve, remove_configuration
from appliance.host.install.bundle_admission import follow_root
from appliance.host.install.hand_over import remove_unused_sets
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import Release
from appliance.host.release.state_format import raise_state_format
from bundles.bootstrap_set import bootstrap_root
from signing.errors import ApplianceError


def begin_commit(prefix: Prefix, change: HostChange, now: datetime) -> None:
    """Record that the trial has ended well; from here on nothing returns by itself."""
    committing = HostChange(change.op, change.release, change.before, COMMITTING, utc_text(now))
    write_change(prefix, committing)


def commit_release(release: Release, change: HostChange, services: Services, now: Callable[[], datetime]) -> bool:
    """Make a release good whose trial has ended well, under the lock of installs.

    Args:
        release: on trial.
        change: its record, as the watch has read it.
        services: of this host.
        now: the clock, in UTC.

    Returns:
        False where another command has superseded the trial.

    Raises:
        BusyError: an install runs; what it does decides.
        ApplianceError: as `make_good`; the release stays good.
    """
    prefix = release.prefix
    with hold(prefix):
        found = read_change(prefix)
        if found is None or (found.op, found.release) != (INSTALL, change.release) or found.phase == SWITCHING:
            return False
        journal = Journal(prefix.journal / "install.jsonl", now)
        with suppress(OSError):  # it is for people: a full disk loses a line, and no release
            journal.write(change.release, LAST, STARTED)
        try:
            begin_commit(prefix, found, now())
        except OSError:
            free_reserve(prefix)
            begin_commit(prefix, found, now())
        make_good(release, services, now())
        with suppress(OSError):
            journal.write(change.release, LAST, DONE, "the trial has ended well")
    return True


def make_good(release: Release, services: Services, now: datetime) -> list[str]:
    """Pin the newest root, end what served before, and tidy up; then remove the record.

    Args:
        release: the one that serves, opened by the pinned root.
        services: of this host.
        now: the clock, in UTC.

    Returns:
        Warnings for people.

    Raises:
        NotTrustedError: the newest root does not cover the release; nothing was pinned.
        ApplianceError: systemd does not end the engines of another release.
    """
    prefix, warnings = release.prefix, []
    follow_root(prefix, release, now)
    raise_state_format(prefix, release.contents)
    services.retire(release)
    remove_configuration(prefix, release.path.name)
    try:
        remove_unused_sets(prefix, release.bundle.value.manifest)
    except (ApplianceError, OSError) as error:
        warnings.append(f"programs of earlier installs stay in {bootstrap_root(prefix.root)}: {error}")
    if not keep_reserve(prefix):
        warnings.append("the disk has no room for the reserve of a return: free some space")
    clear_change(prefix)
    return warnings
