"""The members of a runtime's wheel that a host extracts, cached by the digest of the wheel.

Owns these entries of the cache: extracting and hashing the libraries of a wheel takes longer than packing it. It
decides nothing: a host compares each extracted file with the bundle's contents, so with a wrong entry no host installs.

Rules:
- an entry is named by all of its inputs: the digest of the wheel, the folder inside, and this format.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from appliance.builder.cache.built_entries import build_once, key_of, remove
from appliance.builder.cache.content_store import Cache
from appliance.builder.wheels.reader import wheel_members
from bundles.contents.contents import Member
from signing.digest import Digest

FORMAT = "members 1"


def cached_members(wheel: Path, digest: Digest, folder: str, cache: Cache) -> tuple[Member, ...]:
    """The files of one folder of a wheel, as `reader.wheel_members` gives them.

    Args:
        wheel: verified.
        digest: of its bytes.
        folder: inside the wheel.
        cache: holds the entries.

    Raises:
        As `reader.wheel_members`.
    """

    def write(path: Path) -> None:
        path.write_text(json.dumps([asdict(member) for member in wheel_members(wheel, folder)]), encoding="ascii")

    path = build_once(cache.folder("members"), f"{key_of(FORMAT, digest, folder)}.json", write)
    try:
        return tuple(Member(**fields) for fields in json.loads(path.read_bytes()))
    except (ValueError, TypeError):  # damaged on this disk
        remove(path)
        return cached_members(wheel, digest, folder, cache)
