"""The shipped runtime and model as an engine takes them, as far as this machine's cache holds them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from signing.digest import Digest

CHUNK_BYTES = 64 << 20


def describe_model(path: Path) -> File:
    """A model file as signed contents would describe it."""
    chunks, whole = [], hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(CHUNK_BYTES):
            whole.update(part)
            chunks.append(Chunk(Digest(hashlib.sha256(part).hexdigest()), len(part)))
    size = sum(chunk.size for chunk in chunks)
    return File(f"models/m/{path.name}", "model", 0o644, size, Digest(whole.hexdigest()), tuple(chunks))
