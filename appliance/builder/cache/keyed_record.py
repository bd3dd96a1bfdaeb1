"""Small records of the cache: what a step of a build found or made, under the digest of all that shaped it.

Owns their form: one JSON object whose `key` is that digest. It must never let a record of other inputs count: a file's
name holds a part of the key only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signing.digest import Digest
from signing.errors import ApplianceError
from signing.strictjson import Json, load_canonical, to_file


def read_record(path: Path, key: Digest) -> dict[str, Any] | None:
    """The facts of a record; None where there is none, or one of other inputs, or something that is no record.

    Args:
        path: of the record, untrusted.
        key: the digest that it must have.
    """
    try:
        facts: Any = load_canonical(path.read_bytes(), path.name)
        return facts if facts["key"] == key else None
    except (OSError, ApplianceError, KeyError, TypeError):
        return None


def write_record(path: Path, key: Digest, facts: Mapping[str, Json]) -> None:
    """Write a record whole, or not at all.

    Args:
        path: of the record, in a folder that exists.
        key: the digest of all that shaped the facts.
        facts: without the key.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_suffix(".part")
    temporary.write_bytes(to_file({"key": key, **facts}))
    temporary.rename(path)
