"""Where chunks come from: media, and files that the host already has.

Owns the protocols and types alone. `bundles.chunks.copy` reads from them; nothing here is trusted, since every byte is
hashed while it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol, TypeVar

from bundles.chunks.chunk import Chunk
from signing.digest import Digest
from signing.errors import DamagedError

T = TypeVar("T")


class ChunkSource(Protocol):
    """One or several media with blobs; its methods are called by several threads at the same time."""

    def holds(self, chunk: Chunk) -> bool:
        """Whether a blob of this name can be opened here and now; it states nothing about its bytes."""

    def open_chunk(self, chunk: Chunk) -> int:
        """Open a blob: a file that holds exactly this chunk.

        Returns:
            A descriptor whose position is the chunk's first byte; the caller closes it and hashes what it reads.

        Raises:
            DamagedError: the blob is not here, or cannot be read.
            NotTrustedError: it is no regular file.
        """


class WaitingSource(ChunkSource, Protocol):
    """A source whose media can be changed while it is read."""

    def wait_for(self, wanted: Sequence[Chunk]) -> None:
        """Wait until at least one of these chunks can be opened. One thread calls it, while no other reads.

        Raises:
            NextStickError: nobody is there to wait for; it shows which chunks are missing, and where they are.
        """

    def name_medium(self, chunk: Chunk) -> str:
        """The medium that a chunk is read from, for an error; empty where there is only one."""


class ChoosingSource(ChunkSource, Protocol):
    """A source that may hold several copies of a chunk."""

    def pass_over(self, chunk: Chunk, error: DamagedError) -> bool:
        """Give another copy of a chunk from now on, since the one that was opened last is damaged.

        Returns:
            False where no other copy is here; then the next `open_chunk` gives the same one.
        """


PassOver = Callable[[Chunk, DamagedError], bool]
"""As `ChoosingSource.pass_over`."""


def never(_chunk: Chunk, _error: DamagedError) -> bool:
    """There is no other copy."""
    return False


def from_any_copy(chunk: Chunk, pass_over: PassOver, read: Callable[[], T]) -> T:
    """Read a chunk, again from another copy as long as one is damaged and there is another.

    Args:
        chunk: verified.
        pass_over: asked with each damaged copy.
        read: opens the copy that counts, and hashes what it reads.

    Raises:
        DamagedError: by `read`, for the last copy.
    """
    while True:
        try:
            return read()
        except DamagedError as error:
            if not pass_over(chunk, error):
                raise


def pass_over_of(source: ChunkSource) -> PassOver:
    """How a source passes over a damaged copy; one that holds a single copy of each chunk never does."""
    found: PassOver = getattr(source, "pass_over", never)
    return found


@dataclass(frozen=True)
class Seed:
    """A place on this host that should hold a chunk: a file, untrusted, and the offset in bytes."""

    path: Path
    offset: int


Seeds = Mapping[Digest, Sequence[Seed]]
"""Places on this host by the digest of the chunk; each is hashed before it counts, and a wrong one is passed over."""
FindPlaces = Callable[[Digest], Sequence[Seed]]
"""Finds the places on this host that may hold a chunk; empty where there is none."""


class RebuildingSource(WaitingSource, Protocol):
    """A source that can rebuild a chunk from others, and for this reads those that this host has already."""

    def use_places(self, find_places: FindPlaces) -> None:
        """Take where this host holds chunks, from now on; each is hashed before it counts."""
