"""The one unfinished change of a host: the file `/var/lib/appliance/change`, and its grammar.

Owns the record that decides what a boot, a return and the next command do after a power cut or a kill. The journal
informs people; this file decides. No file means that nothing is unfinished: the release that `current` names is good.

The format is for POSIX sh as much as for Python. Nine lines `name=value`, in the order of `NAMES`, each ended by a
newline. A value consists of `A-Z a-z 0-9 . _ : + -` and may be empty. A shell reads it with

    while IFS== read -r name value; do case $name in phase) phase=$value ;; … esac; done </var/lib/appliance/change

and never sources it.

    format=1                    of this file
    op=install                  install, rollback, uninstall or restore
    release=1.1.0-0123456789ab  the folder of the release that is changed to; empty for uninstall and restore
    before=1.0.0-ba9876543210   the folder of the release to return to; empty where none served before
    phase=trying                see `PHASES`
    since=2026-01-31T12:00:00Z  when this phase began, by this machine's clock: for people, nothing is decided by it
    boots=0                     how often services of `release` were started while it was trying
    purge=no                    for uninstall: whether trust, audit and keys go, too
    note=                       the code of the error that began a return; empty otherwise

Rules:
- the file is written whole, by rename, and is durable before what it announces is done;
- a change that is begun replaces the record of an unfinished one: the newer command supersedes it;
- a file that breaks the grammar is drift; nobody guesses what it meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix
from bundles.medium import sync_folder
from signing.errors import DriftError

FORMAT = 1
INSTALL, ROLLBACK, UNINSTALL, RESTORE = "install", "rollback", "uninstall", "restore"
SWITCHING, TRYING, COMMITTING = "switching", "trying", "committing"
REMOVING, RESTORING = "removing", "restoring"
PHASES = {
    INSTALL: (SWITCHING, TRYING, COMMITTING),
    ROLLBACK: (SWITCHING,),
    UNINSTALL: (REMOVING,),
    RESTORE: (RESTORING,),
}
"""The phases of each operation. At the next boot or command the `switching` of an install is undone. That of a rollback
is finished: a person wanted to leave what served. `trying` is watched. From `committing` on nothing goes back by
itself: `committing`, `removing` and `restoring` are finished."""
_VALUE = re.compile(r"[A-Za-z0-9._:+-]*\Z")
_RELEASE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9a-f]{12})?\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_COUNT = re.compile(r"[0-9]{1,6}\Z")
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HostChange:
    """One unfinished change of a host.

    Args:
        op: a key of `PHASES`.
        release: the folder's name of the release that is changed to; empty where the operation has none.
        before: the folder's name of the release to return to; empty where none served. It equals `release` where a
            release is configured anew.
        phase: one of the operation's `PHASES`.
        since: UTC, when the phase began; for people.
        boots: how often the services of `release` were started while it was trying.
        purge: `yes` or `no`; for `uninstall`.
        note: the code of an error, or empty.
    """

    op: str
    release: str
    before: str
    phase: str
    since: str
    boots: int = 0
    purge: str = "no"
    note: str = ""

    @property
    def is_trying(self) -> bool:
        """Whether a new release serves, and the way back is open."""
        return self.phase == TRYING


NAMES = ("format", *(one.name for one in fields(HostChange)))
"""The names of the lines, in their order."""


def change_path(prefix: Prefix) -> Path:
    """Where the record lies."""
    return prefix.state / "change"


def utc_text(moment: datetime) -> str:
    """Format a time in UTC for the field `since`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_change(prefix: Prefix, change: HostChange) -> None:
    """Write the record, durably; it replaces that of an earlier change."""
    write_file(change_path(prefix), format_change(change), 0o600)


def clear_change(prefix: Prefix) -> None:
    """Remove the record, durably: nothing is unfinished."""
    try:
        os.unlink(change_path(prefix))
    except FileNotFoundError:
        return
    sync_folder(prefix.state)


def read_change(prefix: Prefix) -> HostChange | None:
    """Read the record of the unfinished change; None where there is none.

    Raises:
        DriftError: the file breaks the grammar.
    """
    path = change_path(prefix)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refused(path, error.strerror or "no file") from None
    with open(descriptor, "rb") as file:
        return parse_change(file.read(_MAX_BYTES + 1), path)


def is_cut_off(prefix: Prefix) -> bool:
    """Whether a switch was cut off: the next command undoes or finishes it before it refuses a wrong site's file.

    Raises:
        DriftError: the file breaks the grammar.
    """
    change = read_change(prefix)
    return change is not None and change.phase == SWITCHING


def format_change(change: HostChange) -> bytes:
    """Serialize a change; `parse_change` accepts what this returns.

    Raises:
        ValueError: a field breaks the grammar.
    """
    values = (FORMAT, *(getattr(change, name) for name in NAMES[1:]))
    data = "".join(f"{name}={value}\n" for name, value in zip(NAMES, values, strict=True)).encode("ascii")
    try:
        parse_change(data, Path("change"))
    except DriftError as error:
        raise ValueError(str(error)) from None
    return data


def parse_change(data: bytes, path: Path) -> HostChange:
    """Parse the bytes of the file.

    Args:
        data: untrusted.
        path: for errors.

    Raises:
        DriftError: they break the grammar.
    """
    lines = data.decode("ascii", "replace").split("\n")
    if len(data) > _MAX_BYTES or len(lines) != len(NAMES) + 1 or lines[-1]:
        raise _refused(path, f"{len(data)} bytes in {len(lines) - 1} lines")
    values = {}
    for name, line in zip(NAMES, lines, strict=False):
        found, equals, value = line.partition("=")
        if (found, equals) != (name, "="):
            raise _refused(path, repr(line[:80]))
        values[name] = value
    if values.pop("format") != str(FORMAT):
        raise _refused(path, repr(lines[0]))
    check_values(values, path)
    return HostChange(**{**values, "boots": int(values["boots"])})  # type: ignore[arg-type]


def check_values(values: Mapping[str, str], path: Path) -> None:
    """Refuse values that no program writes, such as the name of a folder elsewhere (threat T120).

    Args:
        values: of each line, by its name.
        path: for errors.

    Raises:
        DriftError: naming the first that is wrong.
    """
    for name, value in values.items():
        if not _VALUE.match(value):
            raise _refused(path, repr(f"{name}={value[:80]}"))
    for name, grammar in _GRAMMARS.items():
        if not grammar.match(values[name]):
            raise _refused(path, f"{name}={values[name][:80]}")
    if values["phase"] not in PHASES.get(values["op"], ()):
        raise _refused(path, f"op={values['op'][:20]} with phase={values['phase'][:20]}")
    if values["op"] in (INSTALL, ROLLBACK) and not values["release"]:
        raise _refused(path, f"op={values['op']} without a release")


_GRAMMARS = {
    "release": _RELEASE,
    "before": _RELEASE,
    "since": _TIME,
    "boots": _COUNT,
    "purge": re.compile(r"(?:yes|no)\Z"),
}


def _refused(path: Path, found: str) -> DriftError:
    return DriftError(
        "change.unreadable",
        str(path),
        expected=f"{len(NAMES)} lines {', '.join(f'{name}=' for name in NAMES)} as this program writes them",
        found=found,
        hint="find out who changed it; then move it away, and run `appliance install` with the newest stick: that "
        "decides what serves",
    )
