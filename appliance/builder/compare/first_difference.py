"""The first place where two versions of a bundle's file differ, as text that leads a person to the cause.

Owns the search. It decides nothing: the digests have shown before that the two differ. Memory is two chunks.

Rules:
- a wheel is compared member by member, in its order: content, then date, then mode; no member is extracted;
- any other file is compared from its first differing chunk on; in text, the line is named.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from itertools import zip_longest

from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.contents.contents import File
from bundles.contents.wheel_record import BROKEN_ZIP

ARCHIVES = ("runtime", "tool", "wheel")
_STEP = 1 << 16
ReadChunk = Callable[[Chunk], bytes]


def first_difference(old: File, new: File, read: ReadChunk) -> str:
    """The first difference of two files: `in its member a/b.py`, `from line 3 on`, `from byte 4096 on`.

    Args:
        old, new: at the same path, with different digests.
        read: gives the bytes of a chunk of either.
    """
    if old.kind in ARCHIVES and max(old.size, new.size) <= MAX_CHUNK_BYTES:
        sides = (b"".join(map(read, file.chunks)) for file in (old, new))
        if found := _member(*sides):
            return found
    at = 0
    for one, two in zip(old.chunks, new.chunks, strict=False):
        if one != two:
            return _within(read(one), read(two), at)
        at += one.size
    return f"from byte {at} on, where the shorter one ends"


def _member(old: bytes, new: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(old)) as one, zipfile.ZipFile(io.BytesIO(new)) as two:
            pairs = list(zip_longest(one.infolist(), two.infolist()))
    except BROKEN_ZIP:
        return ""
    for before, after in pairs:
        if before is None or after is None or before.filename != after.filename:
            return _listed([one.filename for one, _ in pairs if one], [two.filename for _, two in pairs if two])
        if (before.CRC, before.file_size) != (after.CRC, after.file_size):
            return f"in its member {before.filename}"
        if before.date_time != after.date_time:
            return f"in the date of its member {before.filename}"
        if before.external_attr != after.external_attr:
            return f"in the mode of its member {before.filename}"
    return ""


def _listed(before: list[str], after: list[str]) -> str:
    for words, names, others in (("missing", before, after), ("new", after, before)):
        if odd := [name for name in names if name not in others]:
            return f"in its list of members: {odd[0]} is {words}"
    return "in the order of its members"


def _within(old: bytes, new: bytes, start: int) -> str:
    at, shorter = 0, min(len(old), len(new))
    while at < shorter and old[at : at + _STEP] == new[at : at + _STEP]:
        at += _STEP
    while at < shorter and old[at] == new[at]:
        at += 1
    if start == 0 and b"\0" not in new[:_STEP] and b"\n" in new[:-1]:
        return f"from line {new.count(10, 0, at) + 1} on"
    return f"from byte {start + at} on"
