"""Parity of a set of sticks: one stick more, from which any one of the others can be rebuilt (FORMAT 14).

Owns the form of the folder `parity/` and how it is written. `bundles.parity.source` rebuilds blobs. Nothing here
is signed or trusted: a rebuilt blob counts by its own digest only.

Rules:
- each stick is a stream: its chunks one after the other, without gaps; one that lies on several sticks counts once;
- parity is the XOR of all streams, byte by byte, shorter ones filled up with zeros: as long as the longest stream;
- it lies in pieces of 32 MiB beside a list of the streams, outside the covered folders;
- while it is written, every chunk is hashed: a damaged source is an error, never a wrong parity.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Callable

from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.oci.layout import PARITY, Layout
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, parse_digest, sha256
from signing.errors import ApplianceError, DamagedError
from signing.strictjson import Json, load_canonical, to_file

LIST_FILE = f"{PARITY}/PARITY.json"
PIECE_BYTES = 32 << 20
MAX_LIST_BYTES = 8 << 20
MAX_STREAMS = 1000
_BLOCK_BYTES = 1 << 20
_XOR_BYTES = 16 << 10
"""Integers of this length stay in the processor's cache; longer ones are slower."""


@dataclass(frozen=True)
class ParityStreams:
    """Which chunks the parity is made of.

    Args:
        streams: for each stick its chunks, in the order in which they follow one another.
    """

    streams: tuple[tuple[Chunk, ...], ...]
    offsets: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """For each stream where each of its chunks begins, and last where the stream ends."""
    places: dict[Chunk, tuple[int, int]] = field(init=False, repr=False, compare=False)
    """The stream of each chunk, and the chunk's place in it."""

    def __post_init__(self) -> None:
        ends = (accumulate((chunk.size for chunk in stream), initial=0) for stream in self.streams)
        object.__setattr__(self, "offsets", tuple(map(tuple, ends)))
        places = {chunk: (own, at) for own, stream in enumerate(self.streams) for at, chunk in enumerate(stream)}
        object.__setattr__(self, "places", places)

    @property
    def size_bytes(self) -> int:
        """How long the parity is: as the longest stream."""
        return max((offsets[-1] for offsets in self.offsets), default=0)

    @property
    def pieces(self) -> tuple[tuple[str, int], ...]:
        """Path and size in bytes of each file that holds a piece of the parity."""
        size = self.size_bytes
        return tuple((piece_path(at), min(PIECE_BYTES, size - at)) for at in range(0, size, PIECE_BYTES))


def piece_path(offset: int) -> str:
    """Where the piece lies that holds a byte of the parity: `parity/000001.xor` is the first."""
    return f"{PARITY}/{offset // PIECE_BYTES + 1:06}.xor"


def plan_parity(sticks: Sequence[Iterable[Chunk]]) -> ParityStreams:
    """Lay out the parity of a set.

    Args:
        sticks: for each stick the chunks that it holds; those that every stick has need not be among them.

    Returns:
        The streams; `size_bytes` is what the further stick must hold beside the small files.
    """
    seen: set[Digest] = set()
    streams: list[tuple[Chunk, ...]] = []
    for chunks in sticks:
        own = tuple(dict.fromkeys(chunk for chunk in chunks if chunk.sha256 not in seen))
        seen.update(chunk.sha256 for chunk in own)
        streams.append(own)
    return ParityStreams(tuple(stream for stream in streams if stream))


def write_parity(
    plan: ParityStreams, open_chunk: Callable[[Chunk], int], stick: Layout, on_progress: OnProgress = ignore
) -> dict[str, Chunk]:
    """Write the parity of a set to a stick; a piece that lies there already is left as it is.

    Args:
        plan: of `plan_parity`.
        open_chunk: opens a blob of the source, untrusted, at its first byte; the descriptor is closed here.
        stick: where `parity/` is written.
        on_progress: called with bytes written.

    Returns:
        What was written where, to be read back. Memory is one piece and a block of each stream.

    Raises:
        DamagedError: a blob of the source differs from its digest; no list is written then, and no parity counts.
        ApplianceError: as `Medium.write`.
    """
    readers = [_StreamReader(stream, open_chunk) for stream in plan.streams]
    written: dict[str, Chunk] = {}
    done = 0
    try:
        for path, size in plan.pieces:
            data = _write_piece(readers, size)
            stick.medium.write(path, data)
            written[path] = Chunk(sha256(data), size)
            done += size
            on_progress(Progress("writing parity", done, plan.size_bytes))
    finally:
        for reader in readers:
            reader.close()
    listed = to_file({"streams": [[[chunk.sha256, chunk.size] for chunk in stream] for stream in plan.streams]})
    stick.medium.write(LIST_FILE, listed)
    written[LIST_FILE] = Chunk(sha256(listed), len(listed))
    return written


def read_parity(layout: Layout) -> ParityStreams | None:
    """Read the list of a parity.

    Args:
        layout: untrusted.

    Returns:
        None where there is none, or it is of another form: it is a hint, and its absence is no fault of a medium.
    """
    try:
        data = layout.medium.read(LIST_FILE, MAX_LIST_BYTES)
        return None if data is None else _parse(load_canonical(data, LIST_FILE, MAX_LIST_BYTES))
    except (ApplianceError, _NoParity):
        return None


def xor(blocks: Sequence[bytes]) -> bytes:
    """XOR of blocks of equal length, at least one."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    parts = []
    for at in range(0, len(first), _XOR_BYTES):
        value = int.from_bytes(first[at : at + _XOR_BYTES], "little")
        for block in blocks[1:]:
            value ^= int.from_bytes(block[at : at + _XOR_BYTES], "little")
        parts.append(value.to_bytes(min(_XOR_BYTES, len(first) - at), "little"))
    return b"".join(parts)


def _write_piece(readers: Sequence[_StreamReader], size: int) -> bytearray:
    piece = bytearray()
    while len(piece) < size:
        block = min(_BLOCK_BYTES, size - len(piece))
        piece += xor([reader.read(block) for reader in readers])
    return piece


class _StreamReader:
    """Reads the chunks of a stream one after the other, hashing each; behind the last one come zeros."""

    def __init__(self, chunks: Sequence[Chunk], open_chunk: Callable[[Chunk], int]) -> None:
        self._waiting = list(reversed(chunks))
        self._open = open_chunk
        self._descriptor = -1
        self._left = 0

    def read(self, size: int) -> bytes:
        parts = []
        while size and (self._left or self._waiting):
            if not self._left:
                self._begin(self._waiting.pop())
            data = os.read(self._descriptor, min(size, self._left))
            self._state.update(data)
            self._left = self._left - len(data) if data else 0
            size -= len(data)
            parts.append(data)
            if not self._left:
                self._end()
        return b"".join((*parts, bytes(size)))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _begin(self, chunk: Chunk) -> None:
        self._chunk, self._left, self._state = chunk, chunk.size, hashlib.sha256()
        self._descriptor = self._open(chunk)

    def _end(self) -> None:
        self.close()
        found = self._state.hexdigest()
        if found != self._chunk.sha256:
            raise DamagedError(
                "blob.differs",
                f"blobs/sha256/{self._chunk.sha256}",
                expected=f"sha256 {self._chunk.sha256}",
                found=f"sha256 {found}",
                hint="the bundle itself is damaged: build it again, then write the sticks",
            )


class _NoParity(Exception):
    pass


def _parse(value: Json) -> ParityStreams:
    streams = value.get("streams") if isinstance(value, dict) else None
    if not isinstance(streams, list) or not 1 <= len(streams) <= MAX_STREAMS or set(value) != {"streams"}:
        raise _NoParity
    parsed = ParityStreams(tuple(tuple(map(_chunk, stream)) for stream in streams if isinstance(stream, list)))
    digests = [chunk.sha256 for stream in parsed.streams for chunk in stream]
    if len(parsed.streams) != len(streams) or len(set(digests)) != len(digests) or not all(parsed.streams):
        raise _NoParity
    return parsed


def _chunk(value: Json) -> Chunk:
    if not isinstance(value, list) or len(value) != 2:
        raise _NoParity
    digest, size = value
    if type(size) is not int or not 1 <= size <= MAX_CHUNK_BYTES:
        raise _NoParity
    return Chunk(parse_digest(digest, LIST_FILE), size)
