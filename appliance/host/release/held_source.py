"""Chunks of media, and where they lack one, of the files that this host holds.

Owns the choice for readers of single chunks, such as the head of a model: a delta leaves out what its target has. The
copy of a whole bundle chooses by itself (`bundles.chunks.copy`).
"""

from __future__ import annotations

import os

from bundles.chunks.check import hash_range
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource, Seed, Seeds


class HeldSource:
    """A `bundles.chunks.source.ChunkSource` over media and a host.

    Args:
        media: untrusted; asked first.
        seeds: of `held_chunks`, untrusted: a chunk of the host is compared before it is given.
    """

    def __init__(self, media: ChunkSource, seeds: Seeds) -> None:
        self._media, self._seeds = media, seeds

    def holds(self, chunk: Chunk) -> bool:
        """Whether a medium has a blob of this name, or the host a right copy."""
        return self._media.holds(chunk) or self._find(chunk) is not None

    def open_chunk(self, chunk: Chunk) -> int:
        """Open a chunk; the caller closes the descriptor and hashes what it reads.

        Raises:
            ApplianceError: as the media, where the host has no right copy either.
        """
        seed = None if self._media.holds(chunk) else self._find(chunk)
        if seed is None:
            return self._media.open_chunk(chunk)
        descriptor = os.memfd_create("chunk", os.MFD_CLOEXEC)
        try:
            with seed.path.open("rb") as file, os.fdopen(os.dup(descriptor), "wb") as copy:
                file.seek(seed.offset)
                copy.write(file.read(chunk.size))
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _find(self, chunk: Chunk) -> Seed | None:
        return next((seed for seed in self._seeds.get(chunk.sha256, ()) if _is_right(chunk, seed)), None)


def _is_right(chunk: Chunk, seed: Seed) -> bool:
    try:
        descriptor = os.open(seed.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return hash_range(descriptor, seed.offset, chunk.size) == chunk.sha256
    except OSError:
        return False
    finally:
        os.close(descriptor)
