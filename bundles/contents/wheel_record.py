"""The RECORD of a wheel: the files that it brings (FORMAT 3.2).

Owns how a RECORD is read, by the builder and by a host alike: what a host would refuse is not packed. It opens no file;
whether the bytes are the right ones is decided by the caller, who has their digest.

Rules:
- three fields a line, each path once and below the wheel's root;
- digests are SHA-256; every file but RECORD and its signatures has one, and a size (threats T14, T24).

Source: PyPA, binary distribution format, "The .dist-info directory".
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import re
import struct
import zipfile
import zlib
from typing import NamedTuple

from signing.digest import Digest
from signing.errors import NotTrustedError

MAX_RECORD_BYTES = 16 << 20
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OSError),
)
"""What Python's reader raises for bytes that are no zip file, or no longer one."""
_USUAL_DIGEST = re.compile(r"sha256=([A-Za-z0-9_-]{43})\Z")
_UNLISTED = ("RECORD", "RECORD.jws", "RECORD.p7s")


class RecordEntry(NamedTuple):
    """One line of a RECORD.

    Args:
        path: inside the wheel.
        sha256: of the file's bytes.
        size: in bytes.
    """

    path: str
    sha256: Digest
    size: int


def parse_record(data: bytes, own: str, subject: str) -> tuple[RecordEntry, ...]:
    """The lines of a RECORD but those about itself and its signatures, in its order.

    Args:
        data: untrusted, or named by a digest that somebody signed; others wrote it all the same.
        own: its own path in the wheel.
        subject: the wheel, for the error.

    Raises:
        NotTrustedError: a rule of this module is broken (code `wheel.record-refused`).
    """
    folder = own.rpartition("/")[0]
    unlisted = {f"{folder}/{name}" for name in _UNLISTED}
    found: dict[str, RecordEntry] = {}
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _refuse(subject, "a RECORD of comma-separated lines", str(error)[:120]) from None
    for row in rows:
        path = row[0]
        if len(row) != 3 or path.startswith("/") or (".." in path and ".." in path.split("/")) or "\\" in path:
            raise _refuse(subject, "lines of a path below the wheel's root, a hash and a size", repr(row)[:120])
        if path in unlisted:
            continue
        if path in found:
            raise _refuse(subject, "each path once in its RECORD", path[:120])
        found[path] = RecordEntry(path, _digest(row[1], path, subject), _size(row[2], path, subject))
    return tuple(found.values())


def _digest(text: str, path: str, subject: str) -> Digest:
    if usual := _USUAL_DIGEST.match(text):  # as every tool writes it; other forms of the same are rare
        return Digest(binascii.a2b_base64(usual[1].replace("-", "+").replace("_", "/") + "=").hex())
    name, _, encoded = text.partition("=")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if name != "sha256" or len(raw) != 32:
        raise _refuse(subject, f"the sha256 of {path[:120]}", text[:120])
    return Digest(raw.hex())


def _size(text: str, path: str, subject: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _refuse(subject, f"the size of {path[:120]}", text[:120])
    return int(text)


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("wheel.record-refused", subject, expected=expected, found=found)
