"""What the programs of the units have in common: how they end, and how they notify systemd that they are ready.

Owns the exit codes and the lines in the journal. systemd starts a unit again only where that may help: the units list
the exit codes for which it does not (`RestartPreventExitStatus`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from signing.errors import ApplianceError, DamagedError

FINAL_EXITS = (2, 3, 4, 6, 8, 9)
"""Exit codes after which systemd does not start a unit again: usage, damaged, not trusted, unfit host, too many
crashes, drift."""

_FIRST_PASSED = 3


def run(program: Callable[[], None]) -> int:
    """Run a unit's program, and report to the journal how it ended.

    Args:
        program: raises `ApplianceError` where it must not go on; where it becomes another program it never returns.

    Returns:
        The exit code for systemd.
    """
    try:
        program()
    except ApplianceError as error:
        lines = [f"error: {one}" for one in (error, *error.others)]
        sys.stderr.write("\n".join([*lines, f"hint: {error.hint}"] if error.hint else lines) + "\n")
        return exit_code(error)
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
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
