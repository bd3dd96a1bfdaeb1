"""What preflight reads of a machine.

Owns the looking. It changes nothing and judges nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from appliance.host.machine.cpu import cpu_flags
from appliance.host.process import systemctl

_GLIB_VERSION = re.compile(rb"\0(GLIBCXX|CXXABI)_([0-9]+(?:\.[0-9]+)*)\0")


@dataclass(frozen=True, slots=True)
class Machine:
    """What preflight reads of a machine.

    Args:
        os: for example `debian-12`.
        arch: for example `x86_64`.
        glibc, glibcxx, cxxabi: versions, empty where absent.
        cpu_flags: as the kernel names them.
        ram_bytes: all of its memory.
        systemd: version of the one that runs it; 0 where none does.
        is_root: whether this program may change all of it.
    """

    os: str
    arch: str
    glibc: str
    glibcxx: str
    cxxabi: str
    cpu_flags: frozenset[str]
    ram_bytes: int
    systemd: int = 0
    is_root: bool = False


def read_machine() -> Machine:
    """Look at the machine that this runs on."""
    libc = ctypes.CDLL(None)
    libc.gnu_get_libc_version.restype = ctypes.c_char_p
    glibcxx, cxxabi = _cxx_versions()
    return Machine(
        os=_os_name(Path("/etc/os-release")),
        arch=platform.machine(),
        glibc=libc.gnu_get_libc_version().decode(),
        glibcxx=glibcxx,
        cxxabi=cxxabi,
        cpu_flags=cpu_flags(),
        ram_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        systemd=systemctl.version(),
        is_root=os.geteuid() == 0,
    )


def version_key(text: str) -> tuple[int, ...]:
    """A version as numbers, to compare it with another."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", text))


def _os_name(path: Path) -> str:
    fields = dict.fromkeys(("ID", "VERSION_ID"), "")
    try:
        for line in path.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition("=")
            if name in fields:
                fields[name] = value.strip().strip("\"'")
    except OSError:
        pass
    return f"{fields['ID'] or 'unknown'}-{fields['VERSION_ID'] or 'unknown'}"


def _cxx_versions() -> tuple[str, str]:
    try:
        ctypes.CDLL("libstdc++.so.6")
        maps = Path("/proc/self/maps").read_text("utf-8", "replace")
    except OSError:
        return "", ""
    path = next((line.split(maxsplit=5)[5] for line in maps.splitlines() if "/libstdc++.so." in line), "")
    try:
        data = Path(path).read_bytes()
    except OSError:
        return "", ""
    best = {b"GLIBCXX": "", b"CXXABI": ""}
    # Neighbours share the zero byte between them, so the search starts again one byte before the end of a match.
    at = 0
    while match := _GLIB_VERSION.search(data, at):
        at = match.end() - 1
        kind, version = match.group(1), match.group(2).decode()
        best[kind] = max(best[kind], version, key=version_key)
    return best[b"GLIBCXX"], best[b"CXXABI"]
