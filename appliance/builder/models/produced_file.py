"""A file of the cache that another program writes: a model that was quantised or converted.

Owns how it gets there: the program writes under a claim, the result is hashed and lies under its digest from then on.
It must never leave a half-made one: what fails is emptied, and made again by the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.sources.file import measure
from signing.digest import Digest


def make_file(cache: Cache, claim: Digest, most_bytes: int, write: Callable[[Path], None]) -> tuple[Digest, int]:
    """Let a program write a file into the cache.

    Args:
        cache: gets the result, under its digest.
        claim: the digest of all that shapes it; who else wants the same waits.
        most_bytes: what the disk must have room for.
        write: fills the path that it is given, and checks what became of it.

    Returns:
        Digest and size in bytes.

    Raises:
        ApplianceError: the disk is full; or of `write`.
    """
    with cache.claim(claim) as partial:
        require_space(partial.parent, most_bytes)
        try:
            write(partial)
            made, size = measure(partial)
        except BaseException:
            os.truncate(partial, 0)
            raise
        cache.adopt(partial, made)
    return made, size
