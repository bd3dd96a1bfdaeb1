"""What a host takes out of a runtime's wheel, remembered by the wheel's digest.

Owns that memory in the cache: unpacking and hashing the libraries of a wheel takes longer than packing it. It decides
nothing: a host compares what it takes out with what the bundle says, so with a wrong memory no host installs.

Rules:
- the name of a memory is everything that shapes it: the digest of the wheel, the folder inside, and this format.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from appliance.builder.cache.built_once import build_once, key_of, remove
from appliance.builder.cache.content_store import Cache
from appliance.builder.wheels.reader import wheel_members
from bundles.contents.model import Member
from signing.digest import Digest

FORMAT = "members 1"


def cached_members(wheel: Path, digest: Digest, folder: str, cache: Cache) -> tuple[Member, ...]:
    """The files of one folder of a wheel, as `wheels.wheel_members` gives them.

    Args:
        wheel: verified.
        digest: of its bytes.
        folder: inside the wheel.
        cache: remembers.

    Raises:
        As `wheels.wheel_members`.
    """

    def look(path: Path) -> None:
        path.write_text(json.dumps([asdict(member) for member in wheel_members(wheel, folder)]), encoding="ascii")

    path = build_once(cache.folder("members"), f"{key_of(FORMAT, digest, folder)}.json", look)
    try:
        return tuple(Member(**fields) for fields in json.loads(path.read_bytes()))
    except (ValueError, TypeError):  # spoiled on this disk
        remove(path)
        return cached_members(wheel, digest, folder, cache)
