"""Compares what a role of the playbooks rendered with what a host has, and writes the difference, all of it at once.

Owns the checking and writing of rendered text, and the users of the services. Ansible renders; this module parses each
text as its reader will, and writes it durably, which Ansible's own modules do not. The playbooks' module
`appliance_files` calls it, one process for a whole role. Playbooks of version 0.1.0 start it as a program, with the
order on stdin: `python -m appliance.host.rendered`.

The order is a JSON object: `{"group": NAME, "users": [NAME], "folders": [{"path", "mode"}],
"files": [{"path", "mode", "content", "check", "keep"}]}`. `mode` is octal text, and `check` is one of `CHECKS`. A file
with `keep` is written only where none exists. The program's answer on stdout is a JSON list of the changed paths.

Rules:
- everything is checked before anything is written;
- what would be written is what is written: `predict` names the changes, and `apply` makes these and no others;
- nothing is written through a symbolic link, and only the ordered folders are made.

Exit codes: 0 for success, 1 with the reason on stderr.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.host.layout.atomic_file import write_file
from appliance.host.playbook.text_checks import CHECKS
from signing.errors import ApplianceError

FILE, FOLDER, GROUP, USER = "file", "folder", "group", "user"
SYSUSERS = "systemd-sysusers"
"""The program that makes users and groups of services; the systemd of every Debian has it."""


@dataclass(frozen=True, slots=True)
class OrderedChange:
    """One thing that an order makes or changes.

    Args:
        kind: `file`, `folder`, `group` or `user`.
        name: an absolute path, or the name of a user or group.
        is_new: whether nothing is there yet.
        before, after: its text, or its mode in octal digits; `before` is empty where nothing is there.
    """

    kind: str
    name: str
    is_new: bool
    before: str = ""
    after: str = ""

    def as_diff(self) -> dict[str, str]:
        """The change as `ansible-playbook --diff` shows it."""
        header = f"{self.kind} {self.name}"
        return {
            "before_header": header,
            "after_header": header,
            "before": _ended(self.before),
            "after": _ended(self.after),
        }


@dataclass(slots=True)
class _OrderWork:
    changes: list[OrderedChange] = field(default_factory=list)
    steps: list[Callable[[], object]] = field(default_factory=list)

    def add(self, change: OrderedChange, *steps: Callable[[], object]) -> None:
        self.changes.append(change)
        self.steps += steps


def predict(order: Mapping[str, Any]) -> list[OrderedChange]:
    """Name what `apply` would change. Nothing is written.

    Args:
        order: from the role, as described above; its paths are absolute.

    Returns:
        The changes, in the order in which they would be made.

    Raises:
        ValueError: a text fails its check, or a link or a file lies where a folder is ordered.
        OSError: a file cannot be read.
    """
    return _compare(order).changes


def apply(order: Mapping[str, Any]) -> list[OrderedChange]:
    """Make the users and folders, and write the files that differ.

    Args:
        order: as for `predict`.

    Returns:
        What was made or changed.

    Raises:
        ValueError: as `predict`; nothing was written. Or the users could not be made.
        OSError: a file cannot be written.
    """
    work = _compare(order)
    for step in work.steps:
        step()
    return work.changes


def write_rendered(order: Mapping[str, Any]) -> list[str]:
    """Apply an order; returns the names of what was changed. Raises as `apply`."""
    return [change.name for change in apply(order)]


def _compare(order: Mapping[str, Any]) -> _OrderWork:
    work = _OrderWork()
    files = [file for file in order.get("files") or () if not (file.get("keep") and os.path.lexists(file["path"]))]
    for file in files:
        try:
            CHECKS[file.get("check") or "none"](file["content"])
        except (ValueError, ApplianceError) as error:
            raise ValueError(f"{file['path']}: {error}") from None
    _compare_users(order.get("group") or "", order.get("users") or (), work)
    for folder in order.get("folders") or ():
        _compare_folder(Path(folder["path"]), int(folder["mode"], 8), work)
    for file in files:
        _compare_file(Path(file["path"]), file["content"], int(file["mode"], 8), work)
    return work


def _compare_users(group: str, users: Sequence[str], work: _OrderWork) -> None:
    lines = [f"g {group} - -"] if group else []
    lines += [f'u {user} -:{group} "Service of the appliance" /nonexistent /usr/sbin/nologin' for user in users]
    missing = [OrderedChange(GROUP, group, True, "", group)] if group and not _exists(grp.getgrnam, group) else []
    missing += [OrderedChange(USER, user, True, "", user) for user in users if not _exists(pwd.getpwnam, user)]
    for change in missing:
        work.add(change)
    if missing:
        work.steps.append(lambda: _make_users(lines))


def _exists(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _make_users(lines: Sequence[str]) -> None:
    done = subprocess.run([SYSUSERS, "--inline", *lines], check=False, capture_output=True)
    if done.returncode != 0:
        raise ValueError(f"{SYSUSERS}: {done.stderr.decode('utf-8', 'replace').strip()}")


def _compare_folder(path: Path, mode: int, work: _OrderWork) -> None:
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        work.add(OrderedChange(FOLDER, str(path), True, "", _digits(mode)), lambda: _make_folder(path, mode))
        return
    if not stat.S_ISDIR(found):
        raise NotADirectoryError(20, "a folder is ordered, and something else lies there", str(path))
    if stat.S_IMODE(found) != mode:
        change = OrderedChange(FOLDER, str(path), False, _digits(stat.S_IMODE(found)), _digits(mode))
        work.add(change, lambda: _make_folder(path, mode))


def _make_folder(path: Path, mode: int) -> None:
    if not os.path.lexists(path):
        path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _compare_file(path: Path, content: str, mode: int, work: _OrderWork) -> None:
    is_new = not os.path.lexists(path)
    before, found = ("", mode) if is_new else _read(path)
    if not is_new and (before, found) == (content, mode):
        return
    if before == content and not is_new:  # the same text with another mode
        change = OrderedChange(FILE, str(path), False, f"mode {_digits(found)}", f"mode {_digits(mode)}")
    else:
        change = OrderedChange(FILE, str(path), is_new, before, content)
    work.add(change, lambda: write_file(path, content.encode(), mode))


def _read(path: Path) -> tuple[str, int]:
    """The text and the mode of a file; what is no regular file is described in words, with a mode that none has."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"a link to {os.readlink(path)}\n", -1
    if not stat.S_ISREG(status.st_mode):
        return "no regular file\n", -1
    return path.read_bytes().decode("utf-8", "backslashreplace"), stat.S_IMODE(status.st_mode)


def _digits(mode: int) -> str:
    return f"{mode:04o}"


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def main() -> int:
    """Read the order from stdin, write the files, and print the changed paths; returns the exit code."""
    try:
        changed = write_rendered(json.load(sys.stdin))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(changed) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
