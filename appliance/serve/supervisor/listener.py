"""The port that users connect to.

Owns the listening socket, which is bound before anything else is done and passed on to the gateway.

Rules:
- plain http is for this machine alone: an address that is not loopback is refused;
- a port that is taken is reported at once, with the program that holds it where the kernel shows that.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path

from signing.errors import HostUnfitError, UsageError

_LISTENING = "0A"
_BACKLOG = 512


def bind(address: str, port: int, *, is_tls: bool = False) -> socket.socket:
    """Bind a port. No user is connected before `listen`.

    Args:
        address: version 4 or 6; of the loopback interface without TLS.
        port: 0 for any that is free.
        is_tls: whether those who connect must speak TLS.

    Raises:
        UsageError: without TLS, the address reaches beyond this machine.
        HostUnfitError: the port is taken, or may not be used.
    """
    if not is_tls:
        _check_loopback(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise _refused(address, port, error) from None
    return listener


def listen(listener: socket.socket) -> None:
    """Let users connect.

    Raises:
        HostUnfitError: another program took the port in between.
    """
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        address, port = listener.getsockname()[:2]
        raise _refused(address, port, error) from None


def find_holder(port: int, proc: Path = Path("/proc")) -> str:
    """The program that listens on a port, as far as this user may see it."""
    inodes = {f"socket:[{row[9]}]" for name in ("tcp", "tcp6") for row in _sockets(proc / "net" / name, port)}
    for folder in proc.glob("[0-9]*/fd"):
        try:
            if any(os.readlink(entry) in inodes for entry in folder.iterdir()):
                name = (folder.parent / "comm").read_text("utf-8", "replace").strip()
                return f"{name} (process {folder.parent.name})"
        except OSError:
            continue  # another user's process, or one that has just ended
    return "another program"


def _sockets(table: Path, port: int) -> list[list[str]]:
    try:
        rows = [line.split() for line in table.read_text("ascii").splitlines()[1:]]
    except OSError:
        return []
    return [row for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == _LISTENING]


def _check_loopback(address: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise UsageError(
            "serve.not-loopback",
            address,
            expected="a loopback address such as 127.0.0.1: without TLS nobody else may connect",
            found=address,
            hint="set `bind: 127.0.0.1` in site.yaml, or name a certificate with `tls`; then appliance config apply",
        )


def _refused(address: str, port: int, error: OSError) -> HostUnfitError:
    is_taken = error.errno == errno.EADDRINUSE
    return HostUnfitError(
        "port.in-use" if is_taken else "port.refused",
        f"{address} port {port}",
        expected="a free port",
        found=f"taken by {find_holder(port)}" if is_taken else (error.strerror or str(error)),
        hint="appliance serve --port 0 takes any free port" if is_taken else "use another port: `--port N`",
    )
