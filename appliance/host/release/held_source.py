"""Chunks of media, and where they lack one, of the files that this host holds.

Owns the choice for readers of single chunks, such as the head of a model: a delta leaves out what its target has. The
copy of a whole bundle chooses by itself (`bundles.chunks.copy`).
"""

from __future__ import annotations

import os
from contextlib import suppress

from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource, Seed, Seeds, pass_over_of
from signing.digest import sha256
from signing.errors import DamagedError


class HeldSource:
    """A `ChunkSource` of media and of this host, for who reads a delta: what no medium has is taken from the host.

    Args:
        media: asked first.
        seeds: of `held_chunks`; each chunk is hashed before it counts.
    """

    def __init__(self, media: ChunkSource, seeds: Seeds) -> None:
        self._media = media
        self._seeds = seeds

    def holds(self, chunk: Chunk) -> bool:
        """Whether a medium has a blob of this name, or this host the right bytes."""
        if self._media.holds(chunk):
            return True
        descriptor = self._copy(chunk)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def open_chunk(self, chunk: Chunk) -> int:
        """Open a blob, or a copy in memory of what this host holds; errors as those of the media."""
        descriptor = None if self._media.holds(chunk) else self._copy(chunk)
        return self._media.open_chunk(chunk) if descriptor is None else descriptor

    def pass_over(self, chunk: Chunk, error: DamagedError) -> bool:
        """Give a damaged chunk from another medium from now on, where one has it; see `ChoosingSource`."""
        return pass_over_of(self._media)(chunk, error)

    def _copy(self, chunk: Chunk) -> int | None:
        for seed in self._seeds.get(chunk.sha256, ()):
            with suppress(OSError):
                data = _read(seed, chunk.size)
                if sha256(data) == chunk.sha256:
                    descriptor = os.memfd_create("held", os.MFD_CLOEXEC)
                    with open(os.dup(descriptor), "wb") as stream:
                        stream.write(data)
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    return descriptor
        return None


def _read(seed: Seed, size: int) -> bytes:
    with open(os.open(seed.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        stream.seek(seed.offset)
        return stream.read(size)
