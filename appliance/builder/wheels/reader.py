"""Reading wheels: their RECORD, their metadata, their licence texts, and the members that a host extracts.

Owns how a wheel is read. It must never install one, run anything of it, or extract it to a disk.

Rules:
- a wheel here has been compared with the lock, but others wrote its content: sizes have caps, names are unique;
- RECORD is read as a host reads it (`bundles.contents.wheel_record`), and lists every member;
- a wheel is read once: results are cached while the file stays the same.

Source: PyPA, binary distribution format and core metadata.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from packaging.metadata import RawMetadata

from appliance.builder.wheels.core_metadata import declared_licence, parse_core_metadata
from appliance.file_state import file_state
from bundles.contents.contents import Member
from bundles.contents.wheel_record import BROKEN_ZIP, MAX_RECORD_BYTES, parse_record
from bundles.fsverity_digest import VerityHasher
from signing.digest import READ_BYTES, Digest, sha256
from signing.errors import DamagedError, NotTrustedError

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 1 << 30
MAX_TEXT_BYTES = 8 << 20
_LICENCE = re.compile(r"(?:licenses/.+|(?:licen[cs]e|copying|notice|authors)[^/]*)\Z", re.IGNORECASE)


def wheel_record(path: Path) -> Digest:
    """The digest of the wheel's RECORD, against which an installed copy can be checked.

    Raises:
        DamagedError: it is no wheel.
        NotTrustedError: it breaks a cap or a rule of this module.
    """
    record = _content(path).record
    if record is None:
        raise _not_a_wheel(path, "no RECORD")
    return record


def wheel_members(path: Path, folder: str = "llama_cpp/lib") -> tuple[Member, ...]:
    """The files directly in one folder of the wheel, as a host extracts them.

    Args:
        path: a verified wheel.
        folder: inside the wheel.

    Returns:
        Path, size, digests and mode (0o755 where the wheel marks it executable, else 0o644), in path order.

    Raises:
        DamagedError: it is no wheel, or a member's bytes are damaged.
        NotTrustedError: a member is larger than 1 GiB, or no regular file.
    """
    prefix = folder.rstrip("/") + "/"
    with _open(path) as archive:
        wanted = [info for info in archive.infolist() if info.filename.startswith(prefix) and not info.is_dir()]
        return tuple(_member(archive, info, prefix, path) for info in sorted(wanted, key=lambda info: info.filename))


def wheel_metadata(path: Path) -> tuple[str, str, str]:
    """Name, version and licence of a wheel, from its METADATA.

    Returns:
        The licence is as `core_metadata.declared_licence` gives it.

    Raises:
        DamagedError: it is no wheel, or its METADATA has no name or version.
    """
    fields = _metadata(path)
    name, version = fields.get("name", "").strip(), fields.get("version", "").strip()
    if not name or not version:
        raise _not_a_wheel(path, "no Name or Version in METADATA")
    return name, version, declared_licence(fields)


def wheel_requires(path: Path) -> tuple[str, ...]:
    """The requirements of a wheel (`Requires-Dist`), as its METADATA writes and orders them."""
    return tuple(_metadata(path).get("requires_dist", ()))


def unpacked_bytes(path: Path) -> int:
    """The size of all files of a wheel in bytes, by the directory of its ZIP file."""
    return _content(path).unpacked_bytes


def licence_texts(path: Path) -> list[tuple[str, bytes]]:
    """The licence files in the wheel's dist-info: their path below it (without `licenses/`) and their bytes."""
    return list(_content(path).licences)


@dataclass(frozen=True, slots=True)
class _WheelContent:
    """What is read of a wheel at its first use; None for a file that it does not have."""

    record: Digest | None
    metadata: RawMetadata | None
    unpacked_bytes: int
    licences: tuple[tuple[str, bytes], ...]


def _content(path: Path) -> _WheelContent:
    return _read_content(path, file_state(path.stat()))


@lru_cache(maxsize=512)
def _read_content(path: Path, _identity: tuple[int, ...]) -> _WheelContent:
    with _open(path) as archive:
        folder, names = _dist_info(archive, path), set(archive.namelist())
        record, metadata = folder + "RECORD", folder + "METADATA"
        return _WheelContent(
            record=_record(archive, record, path) if record in names else None,
            metadata=_parse_metadata(archive, metadata, path) if metadata in names else None,
            unpacked_bytes=sum(info.file_size for info in archive.infolist()),
            licences=tuple(
                (name.removeprefix(folder).removeprefix("licenses/"), _read(archive, name, MAX_TEXT_BYTES, path))
                for name in sorted(names)
                if name.startswith(folder) and not name.endswith("/") and _LICENCE.match(name.removeprefix(folder))
            ),
        )


def _record(archive: zipfile.ZipFile, name: str, path: Path) -> Digest:
    # As a host reads it before it installs the wheel: the build refuses what a host would refuse.
    data = _read(archive, name, MAX_RECORD_BYTES, path)
    listed = {name, *(entry.path for entry in parse_record(data, name, path.name))}
    unlisted = [info.filename for info in archive.infolist() if not info.is_dir() and info.filename not in listed]
    if unlisted:
        raise _refuse(path.name, "only members that its RECORD lists", repr(unlisted[0])[:120])
    return sha256(data)


def _parse_metadata(archive: zipfile.ZipFile, name: str, path: Path) -> RawMetadata:
    try:
        return parse_core_metadata(_read(archive, name, MAX_TEXT_BYTES, path))
    except ValueError as error:
        raise _refuse(f"{path.name}/{name}", "core metadata", str(error)) from None


def _metadata(path: Path) -> RawMetadata:
    found = _content(path).metadata
    if found is None:
        raise _not_a_wheel(path, "no METADATA")
    return found


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(archive, path)
            yield archive
    except BROKEN_ZIP as error:
        raise _not_a_wheel(path, str(error)) from None


def _check_names(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise _refuse(path.name, f"at most {MAX_MEMBERS} members", str(len(names)))
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise _refuse(path.name, "relative paths", repr(name)[:120])
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise _refuse(path.name, "each member once", repr(twice[0])[:120])


def _dist_info(archive: zipfile.ZipFile, path: Path) -> str:
    found = {name.partition("/")[0] for name in archive.namelist() if name.partition("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise _not_a_wheel(path, f"{len(found)} dist-info folders")
    return found.pop() + "/"


def _read(archive: zipfile.ZipFile, name: str, max_bytes: int, path: Path) -> bytes:
    try:
        with archive.open(name) as stream:
            data = stream.read(max_bytes + 1)
    except (KeyError, RuntimeError) as error:
        raise _not_a_wheel(path, str(error)) from None
    if len(data) > max_bytes:
        raise _refuse(f"{path.name}/{name}", f"at most {max_bytes} bytes", "more")
    return data


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, prefix: str, path: Path) -> Member:
    subject = f"{path.name}/{info.filename}"
    mode = info.external_attr >> 16
    # A wheel made on a system without modes has none: then it is a regular file.
    if "/" in info.filename.removeprefix(prefix) or (mode and mode & 0o170000 not in (0, 0o100000)):
        raise _refuse(subject, "regular files directly in the folder", oct(mode))
    if info.file_size > MAX_MEMBER_BYTES:
        raise _refuse(subject, f"at most {MAX_MEMBER_BYTES} bytes", f"{info.file_size} bytes")
    with archive.open(info) as stream:
        digest, verity, size = _hash(stream)
    return Member(info.filename, size, digest, verity, 0o755 if mode & 0o100 else 0o644)


def _hash(stream: IO[bytes]) -> tuple[Digest, Digest, int]:
    plain, verity, size = hashlib.sha256(), VerityHasher(), 0
    while block := stream.read(READ_BYTES):
        plain.update(block)
        verity.update(block)
        size += len(block)
    return Digest(plain.hexdigest()), verity.digest(), size


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("wheel.refused", subject, expected=expected, found=found)


def _not_a_wheel(path: Path, found: str) -> DamagedError:
    return DamagedError("wheel.unreadable", str(path), expected="a wheel", found=found)
