"""An empty network for the demo's host half.

Owns one step: this process, and every child that it starts afterwards, enters a network namespace with nothing but its
own loopback. It needs no root where the machine lets users make namespaces, and returns the reason where it does not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def enter_empty_network() -> str:
    """Leave every network of this machine. The process must have one thread.

    Returns:
        Empty when it worked, else why this machine refused; then nothing has changed.
    """
    # Tried in a child first: a machine may refuse half-way, and a process cannot leave a user namespace again.
    pid = os.fork()
    if pid == 0:
        os._exit(_try_to_enter())
    refusal = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if refusal:
        return os.strerror(refusal)
    _enter()
    return ""


def _try_to_enter() -> int:
    try:
        _enter()
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _enter() -> None:
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET if user == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if user != 0:
        _keep_identity(user, group)
    _raise_loopback()


def interfaces() -> list[str]:
    """The network interfaces that this process can see."""
    return sorted(name for _, name in socket.if_nameindex())


def _keep_identity(user: int, group: int) -> None:
    # Inside the new user namespace this user keeps its number, so that files keep their owner.
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
