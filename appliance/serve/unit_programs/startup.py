"""What the programs of the units have in common: how they end, and how they notify systemd that they are ready.

Owns the exit codes and the lines in the journal. systemd starts a unit again only where that may help: the units list
the exit codes for which it does not (`RestartPreventExitStatus`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from appliance.events import Event
from appliance.host.process.journal import write_report
from signing.errors import ApplianceError, DamagedError

FINAL_EXITS = (2, 3, 4, 6, 8, 9)
"""Exit codes after which systemd does not start a unit again: usage, damaged, not trusted, unfit host, too many
crashes, drift."""

_FIRST_PASSED = 3
UnitError = ApplianceError | OSError


def run(program: Callable[[], None], find_event: Callable[[UnitError], Event | None] = lambda _: None) -> int:
    """Run a unit's program, and report to the journal how it ended, in one entry.

    Args:
        program: raises `ApplianceError` where it must not go on; where it becomes another program it never returns.
        find_event: gives the event that an error is, where it is one.

    Returns:
        The exit code for systemd.
    """
    try:
        program()
    except ApplianceError as error:
        lines = [f"error: {one}" for one in (error, *error.others)]
        text = "\n".join([*lines, f"hint: {error.hint}"] if error.hint else lines)
        write_report(text, find_event(error), os.environ, sys.stderr)
        return exit_code(error)
    except OSError as error:
        write_report(f"error: {error}", find_event(error), os.environ, sys.stderr)
        return exit_code(error)
    return 0


def exit_code(error: ApplianceError | OSError) -> int:
    """The exit code of a unit's program after an error."""
    if isinstance(error, ApplianceError):
        return error.exit_code
    # A disk that does not give what was installed: to start again and again would not help it.
    return DamagedError.exit_code if error.filename else 1


def passed_socket() -> socket.socket | None:
    """The listening socket that systemd passed to this process; None where it passed none (see sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    found = socket.socket(fileno=_FIRST_PASSED)
    found.set_inheritable(False)
    return found


def notify_ready() -> None:
    """Notify systemd that this unit is ready; does nothing where systemd did not start it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(b"READY=1")
