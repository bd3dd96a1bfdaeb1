"""A chunk: a blob that is part of a file of a bundle (FORMAT 4)."""

from __future__ import annotations

from dataclasses import dataclass

from signing.digest import Digest

MAX_CHUNK_BYTES = 64 << 20
"""Far below what FAT32 can hold, and small enough to be carried again after a fault."""


@dataclass(frozen=True)
class Chunk:
    """A blob that is part of a file: its name and its length in bytes (1 … 64 MiB)."""

    sha256: Digest
    size: int
