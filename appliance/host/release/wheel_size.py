"""How much a wheel becomes when it is unpacked, measured before an installer unpacks it (threat T24).

Owns the comparison of a wheel's members with its signed RECORD and with the room that the signed contents ask for. It
writes nothing: what a member becomes is counted and thrown away.

Rules:
- the sizes in the RECORD count, which the contents name by digest; what the archive claims of itself does not;
- a member that the RECORD does not list, or that stands twice, is a refusal, since an installer would unpack it;
- all wheels together take no more room than the contents ask of a host.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from appliance.host.release.wheel import WheelRecord, open_wheel, read_record
from appliance.host.tree.places import PACKED, place
from appliance.host.tree.prefix import Prefix
from bundles.contents.model import Contents, File
from signing.errors import NotTrustedError

_READ_BYTES = 1 << 20


def check_unpacked(prefix: Prefix, release: Path, contents: Contents) -> int:
    """Count what every wheel of a release becomes. Cost: each wheel decompressed once.

    Args:
        prefix, release: where the wheels lie; their bytes were compared with their chunks.
        contents: believed.

    Returns:
        The bytes of all members.

    Raises:
        NotTrustedError: code `wheel.bomb`: a member becomes larger than the RECORD says, is not in it, or stands twice;
            or all together need more than the contents say.
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
