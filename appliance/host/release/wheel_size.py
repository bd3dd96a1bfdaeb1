"""The unpacked size of a wheel, measured before an installer unpacks it (threat T24).

Owns the comparison of a wheel's members with its signed RECORD, and with the disk space that the signed contents
declare. It writes nothing: the unpacked bytes are counted and dropped.

Rules:
- the sizes in the RECORD count, since the contents name it by digest; the sizes that the archive states do not;
- a member that the RECORD does not list, or that is in the archive twice, is a refusal: an installer would unpack it;
- all wheels together take no more disk space than the contents declare.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from appliance.host.layout.places import PACKED, place
from appliance.host.layout.prefix import Prefix
from bundles.contents.contents import Contents, File
from bundles.contents.signed_wheel import WheelRecord, open_wheel, read_record
from signing.errors import NotTrustedError

_READ_BYTES = 1 << 20


def check_unpacked(prefix: Prefix, release: Path, contents: Contents) -> int:
    """Measure what all wheels of a release unpack to. Cost: each wheel is decompressed once.

    Args:
        prefix, release: where the wheels lie; their bytes were compared with their chunks.
        contents: verified.

    Returns:
        The sum of all members, in bytes.

    Raises:
        NotTrustedError: code `wheel.bomb`. A member is larger than in the RECORD, not in it, or in the archive twice;
            or all together need more than the contents declare.
        DamagedError: a wheel is no archive, or its RECORD is not the signed one.
    """
    total = 0
    for file in contents.of_kind(*PACKED):
        wheel = place(prefix, release, file)
        record = read_record(file, wheel)
        with open_wheel(file, wheel) as archive:
            total += _check_members(file, archive, record)
    if total > contents.needs.disk_bytes:
        raise _bomb("wheels", f"at most {contents.needs.disk_bytes} bytes, as the contents say", f"{total} bytes")
    return total


def _check_members(file: File, archive: zipfile.ZipFile, record: WheelRecord) -> int:
    sizes = {entry.path: entry.size for entry in record.entries} | {record.path: len(record.data)}
    total, seen = 0, set()
    for info in archive.infolist():
        if info.is_dir():
            continue
        if info.filename in seen or info.filename not in sizes:
            found = "the same twice" if info.filename in seen else "a member that it does not list"
            raise _bomb(f"{file.path}!{info.filename[:120]}", "what the signed RECORD lists, once", found)
        seen.add(info.filename)
        total += _count(file, archive, info, sizes[info.filename])
    return total


def _count(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> int:
    size = 0
    with archive.open(info) as stream:
        while block := stream.read(_READ_BYTES):
            size += len(block)
            if size > most:
                raise _bomb(f"{file.path}!{info.filename}", f"{most} bytes, as its RECORD says", "more")
    return size


def _bomb(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "wheel.bomb", subject, expected=expected, found=found, hint="do not install this bundle; ask a key holder"
    )
