"""A file of a bundle as a stream, read from its blobs.

Owns the stream. It must never return a byte of a blob that is not the signed one. Each blob is hashed before
any of it is returned, so memory is one chunk (at most 64 MiB).
"""

from __future__ import annotations

import io
import os

from bundles.chunks.check import changed
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource, from_any_copy, pass_over_of
from bundles.contents.contents import File
from signing.digest import sha256


class ChunkStream(io.RawIOBase):
    """The bytes of one file, from its first on.

    Args:
        source: a bundle, a stick, or several media; untrusted.
        file: verified.

    Raises:
        DamagedError: when read, where a blob is missing or differs from its signed digest.
        NextStickError: when read, where a blob is on a stick that is not here.
    """

    def __init__(self, source: ChunkSource, file: File) -> None:
        self._source = source
        self._file = file
        self._pass_over = pass_over_of(source)
        self._next = 0
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes: as many as asked for, fewer only where the file ends."""
        parts, wanted = [], self._file.size if size < 0 else size
        while wanted and (self._rest or self._next < len(self._file.chunks)):
            if not self._rest:
                self._rest = memoryview(self._load())
            parts.append(bytes(self._rest[:wanted]))
            self._rest = self._rest[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)

    def read_some(self, size: int) -> bytes:
        """The next bytes of one blob: at most as many as asked for. Where a blob ends, the next one is not read yet."""
        if not self._rest and self._next < len(self._file.chunks):
            self._rest = memoryview(self._load())
        part = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return part

    def _load(self) -> bytes:
        chunk = self._file.chunks[self._next]
        self._next += 1
        return from_any_copy(chunk, self._pass_over, lambda: self._read(chunk))

    def _read(self, chunk: Chunk) -> bytes:
        with open(self._source.open_chunk(chunk), "rb") as blob:
            if os.fstat(blob.fileno()).st_size != chunk.size:
                raise changed(self._file, f"a blob of {chunk.size} bytes", "another length")
            data = blob.read(chunk.size)
        if sha256(data) != chunk.sha256:
            raise changed(self._file, f"blob sha256 {chunk.sha256}", f"sha256 {sha256(data)}")
        return data
