"""Rebuilds blobs of a stick that is lost from the parity and the other sticks (FORMAT 14).

Owns the search for what a blob is rebuilt from, and the rebuilding. Everything that it reads is untrusted. The caller
hashes the result; it is hashed here, too, so that the error for a wrong parity names the parity.

Rules:
- the other chunks may be on media that are here, or in files of this host;
- so sticks can be read one after the other: their chunks are in those files then;
- a chunk of this host is hashed once before it counts;
- what cannot be rebuilt is not held: it is missing, as without a parity.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from threading import Lock
from typing import Callable

from bundles.chunks.check import hash_range
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource, FindPlaces, Seed
from bundles.oci.layout import Layout
from bundles.parity.streams import PIECE_BYTES, ParityStreams, piece_path, read_parity, xor
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError

_BLOCK_BYTES = 1 << 20
_MAX_RENAMES = 3
"""How often a file is looked for anew; the copy renames each file once."""


class ParitySource:
    """A source of the blobs that can be rebuilt here and now; a `ChunkSource`.

    Args:
        layouts: gives the media that are here, untrusted; asked again after each change.
        others: the source of the blobs that lie on those media, and of no rebuilt ones.
        find_places: where this host may hold a chunk, untrusted.
    """

    def __init__(
        self,
        layouts: Callable[[], Sequence[Layout]],
        others: ChunkSource,
        find_places: FindPlaces = lambda _: (),
    ) -> None:
        self._layouts = layouts
        self._others = others
        self.find_places = find_places
        self._right: dict[Digest, Seed] = {}
        self._wrong: set[Digest] = set()
        self._known: dict[Layout, ParityStreams | None] = {}
        self._lock = Lock()

    def holds(self, chunk: Chunk) -> bool:
        """Whether a parity and every other chunk that it needs are here."""
        return self._find(chunk) is not None

    def open_chunk(self, chunk: Chunk) -> int:
        """Rebuild a blob in memory.

        Returns:
            A descriptor at the first byte, which the caller closes. Its bytes have the digest of the chunk.

        Raises:
            DamagedError: it cannot be rebuilt, or the result is another blob (code `parity.differs`).
            NotTrustedError: a piece of the parity is no regular file.
        """
        found = self._find(chunk)
        if found is None:
            raise DamagedError(
                "blob.missing",
                f"blobs/sha256/{chunk.sha256}",
                expected=f"{chunk.size} bytes",
                found="no file, and no parity that it can be rebuilt from",
                hint="copy it again",
            )
        layout, streams, own, at = found
        start = streams.offsets[own][at]
        descriptor = os.memfd_create("rebuilt", os.MFD_CLOEXEC)
        try:
            with ExitStack() as stack:
                readers: list[_Reader] = [_PieceReader(layout, stack)]
                readers += [
                    _ChunkReader(streams, other, self._open_other, stack)
                    for other in range(len(streams.streams))
                    if other != own
                ]
                self._fill(descriptor, readers, start, chunk)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _fill(self, descriptor: int, readers: Sequence[_Reader], start: int, chunk: Chunk) -> None:
        state = hashlib.sha256()
        for at in range(start, start + chunk.size, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, start + chunk.size - at)
            data = xor([reader.read(at, size) for reader in readers])
            state.update(data)
            os.write(descriptor, data)
        try:
            check_rebuilt(chunk, state.hexdigest())
        except DamagedError:
            with self._lock:
                self._wrong.add(chunk.sha256)
            raise

    def _find(self, chunk: Chunk) -> tuple[Layout, ParityStreams, int, int] | None:
        if chunk.sha256 in self._wrong:
            return None
        for layout in self._layouts():
            streams = self._streams(layout)
            place = None if streams is None else streams.places.get(chunk)
            if streams is not None and place is not None:
                own, at = place
                start = streams.offsets[own][at]
                others = (one for one in range(len(streams.streams)) if one != own)
                needed = (span for one in others for span in _spans(streams, one, start, chunk.size))
                if all(self._has(other) for other, _, _ in needed):
                    return layout, streams, own, at
        return None

    def _streams(self, layout: Layout) -> ParityStreams | None:
        with self._lock:
            if layout not in self._known or (layout.is_filling and self._known[layout] is None):
                self._known[layout] = read_parity(layout)
            return self._known[layout]

    def _has(self, chunk: Chunk) -> bool:
        return self._others.holds(chunk) or self._place(chunk) is not None

    def _place(self, chunk: Chunk) -> Seed | None:
        """Where this host holds a chunk, after its bytes were compared."""
        right = self._right.get(chunk.sha256)
        if right is not None and right.path.exists():
            return right
        for place in self.find_places(chunk.sha256):
            with suppress(OSError):
                if _hash_place(place, chunk) == chunk.sha256:
                    with self._lock:
                        self._right[chunk.sha256] = place
                    return place
        return None

    def _open_other(self, chunk: Chunk) -> tuple[int, int]:
        """A descriptor of another chunk, and the offset of its first byte."""
        for _ in range(_MAX_RENAMES):
            place = self._place(chunk)
            if place is None:
                break
            # The copy may give the file its final name at this moment: it is found again under that.
            with suppress(OSError):
                return _open(place), place.offset
            with self._lock:
                self._right.pop(chunk.sha256, None)
        return self._others.open_chunk(chunk), 0


def check_rebuilt(chunk: Chunk, found: str) -> None:
    """Refuse a rebuilt blob that is not the one that was signed.

    Args:
        chunk: verified.
        found: the sha256 of what was rebuilt.

    Raises:
        DamagedError: code `parity.differs`.
    """
    if found != chunk.sha256:
        raise DamagedError(
            "parity.differs",
            f"blobs/sha256/{chunk.sha256}",
            expected=f"sha256 {chunk.sha256}, rebuilt from parity",
            found=f"sha256 {found}",
            hint="the parity or another stick of the set is damaged, or of another writing: ask for this blob",
        )


class _Reader:
    """Reads one of the streams that are joined, at any offset."""

    def read(self, start: int, size: int) -> bytes:
        raise NotImplementedError


class _PieceReader(_Reader):
    """The parity itself, over its pieces."""

    def __init__(self, layout: Layout, stack: ExitStack) -> None:
        self._layout = layout
        self._stack = stack
        self._open: dict[str, int] = {}

    def read(self, start: int, size: int) -> bytes:
        parts = []
        while size:
            path, inside = piece_path(start), start % PIECE_BYTES
            if path not in self._open:
                self._open[path] = descriptor = self._open_piece(path)
                os.posix_fadvise(descriptor, inside, PIECE_BYTES - inside, os.POSIX_FADV_WILLNEED)
                self._stack.callback(os.close, descriptor)
            data = _read_exactly(self._open[path], inside, min(size, PIECE_BYTES - inside), path)
            parts.append(data)
            start += len(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open_piece(self, path: str) -> int:
        try:
            return self._layout.medium.open(path)
        except FileNotFoundError:
            raise DamagedError(
                "parity.missing",
                path,
                expected="a piece of the parity",
                found="no file",
                hint="copy the parity stick again",
            ) from None


class _ChunkReader(_Reader):
    """The chunks of another stick; behind the last one come zeros."""

    def __init__(
        self, streams: ParityStreams, number: int, open_chunk: Callable[[Chunk], tuple[int, int]], stack: ExitStack
    ) -> None:
        self._streams = streams
        self._number = number
        self._open_chunk = open_chunk
        self._stack = stack
        self._open: dict[Digest, tuple[int, int]] = {}

    def read(self, start: int, size: int) -> bytes:
        parts, done = [], 0
        for chunk, inside, length in _spans(self._streams, self._number, start, size):
            if chunk.sha256 not in self._open:
                self._open[chunk.sha256] = found = self._open_chunk(chunk)
                os.posix_fadvise(found[0], found[1] + inside, chunk.size - inside, os.POSIX_FADV_WILLNEED)
                self._stack.callback(os.close, found[0])
            descriptor, base = self._open[chunk.sha256]
            parts.append(_read_exactly(descriptor, base + inside, length, f"blobs/sha256/{chunk.sha256}"))
            done += length
        return parts[0] if len(parts) == 1 and done == size else b"".join((*parts, bytes(size - done)))


def _spans(streams: ParityStreams, number: int, start: int, size: int) -> Iterator[tuple[Chunk, int, int]]:
    """The chunks of a stream in a range of bytes: each with the offset in it and the length that are in the range."""
    offsets, chunks = streams.offsets[number], streams.streams[number]
    end = min(start + size, offsets[-1])
    at = max(0, bisect_right(offsets, start) - 1)
    while start < end:
        length = min(end, offsets[at + 1]) - start
        yield chunks[at], start - offsets[at], length
        start += length
        at += 1


def _hash_place(place: Seed, chunk: Chunk) -> str:
    descriptor = _open(place)
    try:
        return hash_range(descriptor, place.offset, chunk.size)
    finally:
        os.close(descriptor)


def _open(place: Seed) -> int:
    return os.open(place.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_exactly(descriptor: int, start: int, size: int, path: str) -> bytes:
    try:
        data = os.pread(descriptor, size, start)
    except OSError as error:
        raise _unreadable(path, error.strerror or "") from None
    if len(data) != size:
        raise _unreadable(path, "a shorter file")
    return data


def _unreadable(path: str, found: str) -> ApplianceError:
    return DamagedError(
        "parity.unreadable",
        path,
        expected="readable bytes to rebuild a blob from",
        found=found,
        hint="plug the sticks in again, or copy them again",
    )
