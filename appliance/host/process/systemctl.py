"""Calls of systemd: a few commands of `systemctl` and one of `journalctl`.

Owns the command lines and their failures.

Rules:
- nothing of the caller's environment is passed on, and no command asks a person;
- a call that fails is an error with systemd's own message; a unit's state is read, never guessed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from signing.errors import ApplianceError

MIN_VERSION = 248
"""The oldest systemd that knows every setting of the units (NoExecPaths)."""
TIMEOUT_S = 120.0
_RUNNING = Path("/run/systemd/system")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}


@dataclass(frozen=True, slots=True)
class UnitState:
    """The state of a unit, as systemd shows it.

    Args:
        name: of the unit.
        active: `active`, `activating`, `inactive`, `failed`, …
        enabled: `enabled`, `disabled`, or empty where systemd does not know the unit.
        exit_code: of its last main process; 0 where none has ended.
        drop_ins: files by which this host changes the unit.
    """

    name: str
    active: str
    enabled: str
    exit_code: int
    drop_ins: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self.active == "active"

    @property
    def has_ended(self) -> bool:
        """Whether it does not run and is not about to run."""
        return self.active in ("inactive", "failed")


def version() -> int:
    """Read the version of the systemd that runs this machine; 0 where none does."""
    if not _RUNNING.is_dir():
        return 0
    words = _call(["systemctl", "--version"]).split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def reload() -> None:
    """Make systemd read all units again."""
    _call(["systemctl", "daemon-reload"])


def enable(units: Iterable[str]) -> None:
    """Make systemd start units at every boot; those that are enabled already are left alone."""
    _call(["systemctl", "enable", "--quiet", *units])


def disable(units: Iterable[str]) -> None:
    """Stop starting units at boot."""
    _call(["systemctl", "disable", "--quiet", *units])


def start(units: Iterable[str]) -> None:
    """Start units that do not run, and wait until systemd reports them as started."""
    _call(["systemctl", "start", *units])


def restart(units: Iterable[str], *, block: bool = True) -> None:
    """Restart units, whether they run or have failed too often.

    Args:
        units: their names.
        block: whether to wait until systemd reports them as started.
    """
    _call(["systemctl", "reset-failed", *units], check=False)
    _call(["systemctl", "restart", *(() if block else ("--no-block",)), *units])


def stop(units: Iterable[str]) -> None:
    """Stop units, and wait until they have ended."""
    _call(["systemctl", "stop", *units])
    _call(["systemctl", "reset-failed", *units], check=False)


def end(units: Iterable[str]) -> None:
    """End units by force, and wait for none of them: what they do about it does not matter."""
    _call(["systemctl", "--no-block", "stop", *units])
    _call(["systemctl", "kill", "--signal=KILL", *units], check=False)


def state(unit: str) -> UnitState:
    """Read the state of a unit, which need not exist."""
    names = ("ActiveState", "UnitFileState", "ExecMainStatus", "DropInPaths")
    shown = _call(["systemctl", "show", f"--property={','.join(names)}", unit])
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    code = values.get("ExecMainStatus", "")
    return UnitState(
        unit,
        values.get("ActiveState", "unknown"),
        values.get("UnitFileState", ""),
        int(code) if code.isdigit() else 0,
        tuple(values.get("DropInPaths", "").split()),
    )


def last_log_lines(unit: str, lines: int = 4) -> str:
    """Read the newest lines of a unit's log, joined to one line."""
    log = _call(
        ["journalctl", f"--unit={unit}", f"--lines={lines}", "--output=cat", "--no-pager", "--quiet"], check=False
    )
    return " | ".join(" ".join(line.split())[:200] for line in log.splitlines() if line.strip()) or "nothing"


def _call(command: list[str], *, check: bool = True) -> str:
    try:
        done = subprocess.run(
            command,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(command, str(error)) from None
    if check and done.returncode != 0:
        raise _failed(command, done.stderr.strip() or f"exit status {done.returncode}")
    return done.stdout


def _failed(command: list[str], found: str) -> ApplianceError:
    return ApplianceError(
        "systemd.failed",
        " ".join(command[:6]),
        expected="systemd to do so",
        found=" ".join(found.split())[:600],
        hint=f"see `journalctl -b`; then try by hand: {os.path.basename(command[0])} {' '.join(command[1:6])}",
    )
