"""What else is at work on this machine: its name, the ports that programs listen on, and the package manager.

Owns the reading of `/proc` and of dpkg's own files. It starts no program, opens no socket, and changes nothing.

Rules:
- what this user may not see is empty, never guessed: another user's process has no name here;
- a lock is looked up in the kernel's list of locks, so that looking takes none.

Source: proc(5), `/proc/net/tcp` and `/proc/locks`; dpkg(1), the states of packages.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_LOCKS = ("lock-frontend", "lock")
_BROKEN = frozenset({"half-installed"})
_UNFINISHED = frozenset({"half-configured", "unpacked", "triggers-awaited", "triggers-pending"})
_STATUS = re.compile(rb"^(Package|Version|Architecture|Status): (.*)$", re.M)
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its id, the name of its program, and its control groups; id 0 where it could not be seen."""

    pid: int = 0
    name: str = ""
    groups: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})" if self.pid else "a process of another user"


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP port that a program listens on: the address, the port, and the process."""

    address: str
    port: int
    process: Process


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is at work here.

    Args:
        host_name: of the machine.
        listeners: who listens on a TCP port.
        package_lock: who holds the lock of the package manager; None where nobody does.
        installed: version of each installed package, by name and architecture.
        unfinished: packages that are unpacked and not configured yet.
        broken: packages whose files are half unpacked.
    """

    host_name: str = ""
    listeners: tuple[Listener, ...] = ()
    package_lock: Process | None = None
    installed: tuple[tuple[str, str, str], ...] = ()
    unfinished: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def version_of(self, name: str, arch: str) -> str:
        """The version of an installed package; empty where it is not installed."""
        return next((version for one, kind, version in self.installed if (one, kind) == (name, arch)), "")


def read_surroundings(root: Path = Path("/")) -> Surroundings:
    """Look at this machine.

    Args:
        root: `/`, or a folder in its place.
    """
    dpkg = root / "var/lib/dpkg"
    packages = tuple(_packages(dpkg / "status"))
    return Surroundings(
        host_name=os.uname().nodename if root == Path("/") else _text(root / "proc/sys/kernel/hostname").strip(),
        listeners=tuple(_listeners(root / "proc")),
        package_lock=_lock_holder(dpkg, root / "proc"),
        installed=tuple((name, arch, version) for name, arch, version, state in packages if state == "installed"),
        unfinished=tuple(name for name, _, _, state in packages if state in _UNFINISHED),
        broken=tuple(name for name, _, _, state in packages if state in _BROKEN),
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _packages(path: Path) -> Iterator[tuple[str, str, str, str]]:
    try:
        data = path.read_bytes()
    except OSError:
        return
    for entry in data.split(b"\n\n"):
        fields = {name.decode(): value.decode("utf-8", "replace") for name, value in _STATUS.findall(entry)}
        if "Package" in fields and "Status" in fields:
            state = fields["Status"].split()[-1]
            yield fields["Package"], fields.get("Architecture", ""), fields.get("Version", ""), state


def _listeners(proc: Path) -> Iterator[Listener]:
    found = [
        (address, port, inode) for name in ("tcp", "tcp6") for address, port, inode in _sockets(proc / "net" / name)
    ]
    owners = _owners(proc, {inode for _, _, inode in found}) if found else {}
    for address, port, inode in found:
        yield Listener(address, port, owners.get(inode, Process()))


def _sockets(path: Path) -> Iterator[tuple[str, int, str]]:
    for line in _text(path).splitlines()[1:]:
        parts = line.split()
        if len(parts) > 9 and parts[3] == _LISTEN:
            address, _, port = parts[1].partition(":")
            yield _address(address), int(port, 16), parts[9]


def _address(text: str) -> str:
    # The kernel prints each word of 32 bits in the order of this machine.
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _owners(proc: Path, wanted: set[str]) -> dict[str, Process]:
    found: dict[str, Process] = {}
    for folder in proc.glob("[0-9]*"):
        try:
            links = [os.readlink(entry) for entry in os.scandir(folder / "fd")]
        except OSError:
            continue
        for link in links:
            matched = _SOCKET.fullmatch(link)
            if matched and matched.group(1) in wanted:
                found.setdefault(matched.group(1), _process(proc, int(folder.name)))
    return found


def _process(proc: Path, pid: int) -> Process:
    folder = proc / str(pid)
    return Process(pid, _text(folder / "comm").strip(), _text(folder / "cgroup").strip())


def _lock_holder(dpkg: Path, proc: Path) -> Process | None:
    wanted = set()
    for name in _LOCKS:
        try:
            status = (dpkg / name).stat()
        except OSError:
            continue
        wanted.add(f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}")
    for line in _text(proc / "locks").splitlines():
        parts = line.split()
        # "1: POSIX  ADVISORY  WRITE 812 08:01:1311 0 EOF"; "->" marks a process that waits.
        if len(parts) == 8 and parts[5] in wanted:
            return _process(proc, int(parts[4]))
    return None
