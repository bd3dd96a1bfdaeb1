"""A model whose source has it in parts: concatenated in the order of the recipe.

Owns the concatenation. It must never judge a part: each was compared with its own entry of the lock before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.builder.cache.content_store import Cache, require_space
from appliance.builder.cache.partial_file import Partial
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import READ_BYTES, Digest, sha256


def concatenate(name: str, parts: Sequence[Path], cache: Cache, on_progress: OnProgress = ignore) -> tuple[Digest, int]:
    """Write the parts one after the other into the cache. Each byte is read and written once.

    Args:
        name: of the model.
        parts: verified files.
        cache: gets the whole under its digest, which the caller compares with the lock.
        on_progress: called with bytes.

    Returns:
        Digest and size of the whole.

    Raises:
        ApplianceError: the disk is full; no incomplete file stays.
    """
    total = sum(part.stat().st_size for part in parts)
    with cache.claim(sha256("\n".join((name, *map(str, parts))).encode())) as path, Partial(path) as partial:
        partial.restart()
        require_space(path.parent, total)
        try:
            for part in parts:
                with part.open("rb") as stream:
                    while block := stream.read(READ_BYTES):
                        partial.write(block)
                        on_progress(Progress(f"concatenating {name}", partial.size, total))
        except BaseException:
            partial.restart()
            raise
        cache.adopt(path, partial.digest)
        return partial.digest, partial.size
