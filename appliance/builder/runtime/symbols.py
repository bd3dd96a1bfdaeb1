"""What an ELF file needs of a system: the libraries, and the lowest versions of their symbols.

Owns the reader of the dynamic section and of `.gnu.version_r`, and the manylinux tag. It must never run a file.

Rules:
- read from the program headers, as the loader does: of a stripped file nothing else is reliable;
- only the C and C++ library of the system may be needed beside the files of the same folder;
- a symbol version without a known floor is refused, never ignored.

Source: System V ABI, chapter 5; Linux Standard Base, symbol versioning.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from signing.errors import ApplianceError, DamagedError

SYSTEM_LIBRARIES = frozenset(
    {
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "librt.so.1",
        "libstdc++.so.6",
    }
)
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_PT_LOAD, _PT_DYNAMIC = 1, 2

# glibc feature markers that have no number of their own, and the glibc that first had them.
_MARKERS = {"GLIBC_ABI_DT_RELR": (2, 36)}
_FAMILY = re.compile(r"(GLIBCXX|GLIBC|CXXABI|GCC)_(\d+(?:\.\d+)*)\Z")

# manylinux_2_N: the highest GLIBCXX 3.4.x, CXXABI 1.3.x and GCC x that every system with glibc 2.N is taken to have.
_POLICIES = (
    (17, 19, 7, (4, 8, 0)),
    (24, 22, 10, (4, 8, 0)),
    (27, 24, 11, (7, 0, 0)),
    (31, 28, 12, (7, 0, 0)),
    (34, 29, 13, (7, 0, 0)),
    (35, 30, 13, (12, 0, 0)),
    (39, 33, 15, (14, 0, 0)),
)

Number = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Elf:
    """The dependencies that one ELF file states.

    Args:
        soname: its name for the loader, or None.
        needed: names of the libraries that it needs.
        rpath: its DT_RPATH, or None.
        runpath: its DT_RUNPATH, or None.
        versions: the symbol versions that it needs, for example `GLIBC_2.34`.
    """

    soname: str | None
    needed: tuple[str, ...]
    rpath: str | None
    runpath: str | None
    versions: frozenset[str]


@dataclass(frozen=True, slots=True)
class SymbolFloors:
    """The lowest versions that have every needed symbol; `()` where a family is not used."""

    glibc: Number
    glibcxx: Number
    cxxabi: Number
    gcc: Number

    @property
    def manylinux(self) -> str:
        """The platform tag that the symbols justify, for example `manylinux_2_35_x86_64`.

        Raises:
            ApplianceError: a version is newer than every known policy.
        """
        for minor, glibcxx, cxxabi, gcc in _POLICIES:
            if self.glibcxx <= (3, 4, glibcxx) and self.cxxabi <= (1, 3, cxxabi) and self.gcc <= gcc:
                return f"manylinux_2_{max((minor, *self.glibc[1:2]))}_x86_64"
        found = f"GLIBCXX {dotted(self.glibcxx)}, CXXABI {dotted(self.cxxabi)}"
        raise ApplianceError("runtime.abi-unknown", "manylinux", expected="a known C++ library", found=found)


def read_elf(path: Path) -> Elf:
    """Read one 64-bit little-endian ELF file.

    Args:
        path: a file of a few megabytes; it is read whole.

    Raises:
        DamagedError: it is no such file.
    """
    data = path.read_bytes()
    try:
        return _parse(data)
    except (struct.error, LookupError, OverflowError, ValueError, StopIteration) as error:
        raise DamagedError("elf.unreadable", str(path), expected="a 64-bit ELF file", found=str(error)[:80]) from None


def symbol_floors(files: Iterable[tuple[str, Elf]]) -> SymbolFloors:
    """The lowest versions that satisfy all the files.

    Raises:
        ApplianceError: a file needs a version that belongs to no known family.
    """
    highest: dict[str, Number] = {}
    for name, elf in files:
        for version in elf.versions:
            family, number = _number(version, name)
            highest[family] = max(highest.get(family, ()), number)
    return SymbolFloors(*(highest.get(family, ()) for family in ("GLIBC", "GLIBCXX", "CXXABI", "GCC")))


def check_needed(files: dict[str, Elf]) -> None:
    """Refuse a library from outside the folder that is not of the system's C or C++ library.

    Args:
        files: all the ELF files of one folder, by name.

    Raises:
        ApplianceError: naming every file and library.
    """
    wrong = [
        f"{name} needs {library}"
        for name, elf in sorted(files.items())
        for library in elf.needed
        if library not in SYSTEM_LIBRARIES and library not in files
    ]
    if wrong:
        expected = "only the files of the runtime and " + ", ".join(sorted(SYSTEM_LIBRARIES))
        raise ApplianceError("runtime.library-foreign", wrong[0].split()[0], expected=expected, found="; ".join(wrong))


def dotted(number: Number) -> str:
    """Format a version, for example `2.34`."""
    return ".".join(map(str, number))


def _number(version: str, name: str) -> tuple[str, Number]:
    if version in _MARKERS:
        return "GLIBC", _MARKERS[version]
    match = _FAMILY.match(version)
    if match is None:
        raise ApplianceError("runtime.abi-unknown", name, expected="GLIBC, GLIBCXX, CXXABI or GCC", found=version)
    return match[1], tuple(map(int, match[2].split(".")))


def _parse(data: bytes) -> Elf:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("another kind of file")
    segments = _segments(data)
    dynamic: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_DYNAMIC:
            end = segment.offset + segment.size // 16 * 16
            dynamic = list(struct.iter_unpack("<qQ", data[segment.offset : end]))
    values = dict(reversed(dynamic))

    def locate(address: int) -> int:
        home = next(s for s in segments if s.kind == _PT_LOAD and s.address <= address < s.address + s.size)
        return home.offset + address - home.address

    strings = locate(values[_DT_STRTAB]) if _DT_STRTAB in values else 0

    def text(offset: int) -> str:
        start = strings + offset
        return data[start : data.index(b"\0", start)].decode("ascii")

    def optional(tag: int) -> str | None:
        return text(values[tag]) if tag in values else None

    versions: set[str] = set()
    if _DT_VERNEED in values:
        versions = {text(name) for name in _version_names(data, locate(values[_DT_VERNEED]), values[_DT_VERNEEDNUM])}
    needed = tuple(text(value) for tag, value in dynamic if tag == _DT_NEEDED)
    return Elf(optional(_DT_SONAME), needed, optional(_DT_RPATH), optional(_DT_RUNPATH), frozenset(versions))


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def _segments(data: bytes) -> list[_Segment]:
    # Program header: kind, flags, offset, virtual and physical address, size in the file.
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, entries = struct.unpack_from("<HH", data, 54)
    headers = (struct.unpack_from("<IIQQQQ", data, table + index * entry_size) for index in range(entries))
    return [_Segment(kind, offset, address, size) for kind, _flags, offset, address, _physical, size in headers]


def _version_names(data: bytes, offset: int, count: int) -> Iterable[int]:
    # Verneed: version, count of names, file, first name, next Verneed. Vernaux: hash, flags, other, name, next Vernaux.
    for _library in range(count):
        _version, names, _file, first, following = struct.unpack_from("<HHIII", data, offset)
        at = offset + first
        for _name in range(names):
            _hash, _flags, _other, name, step = struct.unpack_from("<IHHII", data, at)
            yield name
            if not step:
                break
            at += step
        if not following:
            break
        offset += following
