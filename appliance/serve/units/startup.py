"""What the programs of the units have in common: how they end, and how they tell systemd that they are ready.

Owns the exit codes and the words in the journal. systemd starts a unit again only where that may help: the units name
the codes of this program's errors for which it does not (`RestartPreventExitStatus`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from signing.errors import ApplianceError, DamagedError


def run(program: Callable[[], None]) -> int:
    """Run a unit's program and tell the journal how it ended.

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
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        # A disk that does not give what was installed: to start again and again would not help it.
        return DamagedError.exit_code if error.filename else 1
    return 0


def tell_ready() -> None:
    """Tell systemd that this unit does its work; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.connect("\0" + address[1:] if address.startswith("@") else address)
            told.sendall(b"READY=1")
