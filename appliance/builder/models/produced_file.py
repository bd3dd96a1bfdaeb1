"""A file of the cache that another program writes: a model that was quantised, merged or converted.

Owns the way into the cache: the program writes under a claim, and the hashed result is stored under its digest. It
must never keep an incomplete file: after a failure it is emptied, and the next run writes it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.cache.keyed_record import read_record
from appliance.builder.lock.lockfile import Pin
from appliance.builder.sources.file import measure
from signing.digest import Digest


def recorded_file(record: Path, key: Digest, name: str) -> Pin | None:
    """The file that a record of the cache states as made from the same inputs; None where it states none.

    Args:
        record: its path, untrusted: the caller hashes the file before it is used.
        key: the digest of all that shapes the file.
        name: that the file has in the bundle.
    """
    facts = read_record(record, key)
    try:
        return Pin(name, facts["size"], facts["sha256"]) if facts is not None else None
    except KeyError:
        return None


def produce_file(cache: Cache, claim: Digest, max_bytes: int, write: Callable[[Path], None]) -> tuple[Digest, int]:
    """Let a program write a file into the cache.

    Args:
        cache: gets the result, under its digest.
        claim: the digest of all that shapes the file; another run with the same claim waits.
        max_bytes: room that the disk must have.
        write: writes the file at the path that it is given, and checks it.

    Returns:
        Digest and size in bytes.

    Raises:
        ApplianceError: the disk is full, or `write` failed.
    """
    with cache.claim(claim) as partial:
        require_space(partial.parent, max_bytes)
        try:
            write(partial)
            digest, size = measure(partial)
        except BaseException:
            os.truncate(partial, 0)
            raise
        cache.adopt(partial, digest)
    return digest, size
