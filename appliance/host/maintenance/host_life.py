"""Where a host stands between two releases: good, trying, or in the middle of a change, and what ends that.

Owns the one judgement of it, for `appliance status`, `doctor` and `support`. It changes nothing and reads small files
only: the record of the unfinished change, the journal, and the links.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from appliance.host.change.change_file import (
    INSTALL,
    RESTORE,
    ROLLBACK,
    UNINSTALL,
    HostChange,
    change_path,
    read_change,
)
from appliance.host.change.journal import DONE, FAILED, STARTED, Journal, JournalEntry
from appliance.host.change.way_back import previous_target
from appliance.host.layout.places import STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.proc_file import read_text
from signing.errors import ApplianceError, DriftError

GOOD, TRYING, UNFINISHED, AT_WORK, UNSEEN = "good", "trying", "unfinished", "at work", "unseen"
_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class HostLife:
    """Where a host stands.

    Args:
        state: `good`: nothing is unfinished. `trying`: a new release serves, and the way back is open. `at work`: a
            command changes this host at this moment. `unfinished`: a change was interrupted. `unseen`: a change is
            recorded, and this user may not read the record.
        change: the record of the unfinished change, or None.
        next_command: what ends an unfinished change; empty where nothing is to be done.
        previous: the folder's name of the release to return to; empty where there is none.
        incident: the last step that failed, or the last return, for people; None where the journal shows none.
        cut_off: the step in which an install ended before it had changed what serves; None where none did.
        problems: an unfinished change, or a record that cannot be read.
        staged: the folders' names of the releases that wait for `appliance switch`.
    """

    state: str
    change: HostChange | None
    next_command: str
    previous: str
    incident: JournalEntry | None
    cut_off: JournalEntry | None
    problems: tuple[ApplianceError, ...]
    staged: tuple[str, ...] = ()


def read_life(prefix: Prefix, locks: Path = _LOCKS) -> HostLife:
    """Read where a host stands.

    Args:
        prefix: the host.
        locks: the kernel's list of locks.
    """
    staged = sorted(path.parent.name for path in prefix.releases.glob(f"*/{STAGED_FILE}"))
    return replace(_life(prefix, locks), staged=tuple(staged))


def _life(prefix: Prefix, locks: Path) -> HostLife:
    previous = (previous_target(prefix) or "").rpartition("/")[2]
    incident = last_incident(prefix)
    is_at_work = is_locked(prefix.journal / "lock", locks)
    try:
        change = read_change(prefix)
    except DriftError as refused:
        if not os.access(change_path(prefix), os.R_OK, follow_symlinks=False):
            return HostLife(UNSEEN, None, "", previous, incident, None, ())
        return HostLife(UNFINISHED, None, "", previous, incident, None, (refused,))
    if is_at_work:
        return HostLife(AT_WORK, change, "", previous, incident, None, ())
    if change is None or change.is_trying:
        cut_off = None if change else _cut_off(prefix)
        step = f"appliance install STICK{prefix.option}" if cut_off else ""
        return HostLife(TRYING if change else GOOD, change, step, previous, incident, cut_off, ())
    step = next_command(prefix, change)
    error = DriftError(
        "change.unfinished",
        str(change_path(prefix)),
        expected="a host on which nothing is unfinished",
        found=f"{describe_change_record(change)}, interrupted",
        hint=step,
    )
    return HostLife(UNFINISHED, change, step, previous, incident, None, (error,))


def describe_change_record(change: HostChange) -> str:
    """The operation, its release and its phase with its begin, for people."""
    if change.op == INSTALL and change.release == change.before:
        return f"configuration of {change.release}, {change.phase} since {change.since}"
    what = f"{change.op} of {change.release}" if change.release else change.op
    return f"{what}, {change.phase} since {change.since}"


def next_command(prefix: Prefix, change: HostChange) -> str:
    """The exact command that ends an interrupted change; STICK and FILE are a person's to name."""
    option = prefix.option
    if change.op == INSTALL and change.release == change.before:
        return f"appliance config apply{option}"
    return {
        INSTALL: f"appliance switch {change.release}{option}",
        ROLLBACK: f"appliance rollback {change.release}{option}",
        UNINSTALL: f"appliance uninstall{' --purge' * (change.purge == 'yes')}{option}",
        RESTORE: f"appliance restore --resume{option}",
    }[change.op]


def last_incident(prefix: Prefix) -> JournalEntry | None:
    """The last step of any change that failed, or the last return from a release that failed on trial."""
    return next((entry for entry in reversed(read_journal(prefix)) if _is_incident(entry)), None)


def is_return(entry: JournalEntry) -> bool:
    """Whether a line of the journal records that the host went back by itself."""
    return (entry.step, entry.state) == ("return", DONE)


def _is_incident(entry: JournalEntry) -> bool:
    return entry.state == FAILED or is_return(entry)


def read_journal(prefix: Prefix) -> list[JournalEntry]:
    """All lines of the journal, oldest first; none where this user may not read it."""
    try:
        return Journal(prefix.journal / "install.jsonl", lambda: datetime.now(timezone.utc)).read()
    except OSError:
        return []


def is_locked(path: Path, locks: Path = _LOCKS) -> bool:
    """Whether a process holds the lock of a file. The kernel's list is read, so that no lock is taken."""
    try:
        status = path.stat()
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(place in line.split() for line in read_text(locks).splitlines() if "->" not in line)


def _cut_off(prefix: Prefix) -> JournalEntry | None:
    entries = read_journal(prefix)
    return entries[-1] if entries and entries[-1].state == STARTED else None
