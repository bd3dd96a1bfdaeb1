"""The versions of the C and C++ libraries that programs on this machine link to.

Owns how the versions are read and compared. They are those of the libraries that this very process has loaded.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import NamedTuple

_VERSION = re.compile(rb"\0(GLIBCXX|CXXABI)_([0-9]+(?:\.[0-9]+)*)\0")


class Libraries(NamedTuple):
    """Versions of glibc and of libstdc++'s two interfaces; empty where a library is absent."""

    glibc: str
    glibcxx: str
    cxxabi: str


def read_libraries() -> Libraries:
    """Read the versions. Cost: the file of libstdc++ is read, about 2 MiB."""
    libc = ctypes.CDLL(None)
    libc.gnu_get_libc_version.restype = ctypes.c_char_p
    return Libraries(libc.gnu_get_libc_version().decode(), *_cxx_versions())


def version_key(text: str) -> tuple[int, ...]:
    """Convert a version to numbers that can be compared."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", text))


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
    newest = {b"GLIBCXX": "", b"CXXABI": ""}
    # Neighbouring names share the zero byte between them, so each search begins one byte before the last match's end.
    at = 0
    while match := _VERSION.search(data, at):
        at = match.end() - 1
        kind, version = match.group(1), match.group(2).decode()
        newest[kind] = max(newest[kind], version, key=version_key)
    return newest[b"GLIBCXX"], newest[b"CXXABI"]
