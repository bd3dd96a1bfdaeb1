"""Copies one chunk from an open file to somewhere else: read once, hashed, and written once.

Owns the loop over bytes, for imports, sticks and joined files alike. It must never report a chunk as copied unless the
bytes that it wrote are the bytes that it hashed (threat T16).

Rules:
- a damaged copy is passed over only where the source has another one, and that is hashed in the same way;
- a fault of reading is an `ApplianceError`; a fault of writing is the `OSError` of the call;
- the kernel is asked for the bytes ahead, so that a medium reads while the processor hashes;
- memory is 1 MiB for each call; 4 MiB where several calls take turns at reading, so that a disk rarely has to seek.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Callable, Optional

from bundles.chunks.chunk import Chunk
from bundles.chunks.source import PassOver, from_any_copy, never
from signing.errors import DamagedError, NotTrustedError

Write = Callable[[memoryview, int], object]
"""Takes the next bytes of a chunk, and how many came before; it must not keep them: the memory is used again."""
BLOCK_BYTES = 1 << 20
TURN_BYTES = 4 << 20
Turn = Optional[AbstractContextManager[object]]
"""Held while a block is read, where several calls read from one disk; None where this is the only one."""
_AHEAD_BYTES = 8 << 20


def take(
    open_chunk: Callable[[Chunk], int],
    chunk: Chunk,
    write: Write,
    subject: str,
    pass_over: PassOver = never,
    turn: Turn = None,
) -> None:
    """Copy one chunk from a source.

    Args:
        open_chunk: as `ChunkSource.open_chunk`; the blob is untrusted, opened once, read once.
        chunk: verified: its digest and its size in bytes.
        write: gets the bytes in order; what it was given is worth nothing unless this returns. Where a damaged copy
            was passed over, it gets all bytes again, from the first on.
        subject: the file of the bundle, for errors.
        pass_over: asked with each damaged copy whether `open_chunk` gives another one.
        turn: held while a block is read.

    Raises:
        DamagedError: the blob is missing, unreadable (code `medium.read-failed`) or differs (`contents.file-changed`).
        NotTrustedError: the blob is longer than signed, or no regular file.
        OSError: by `write`.
    """
    from_any_copy(chunk, pass_over, lambda: _take_once(open_chunk, chunk, write, subject, turn))


def _take_once(open_chunk: Callable[[Chunk], int], chunk: Chunk, write: Write, subject: str, turn: Turn) -> None:
    origin = open_chunk(chunk)
    try:
        if os.fstat(origin).st_size > chunk.size:
            raise NotTrustedError("blob.too-long", subject, expected=f"{chunk.size} bytes", found="more")
        transfer(chunk, origin, 0, write, subject, turn)
    finally:
        os.close(origin)


def transfer(chunk: Chunk, origin: int, start: int, write: Write, subject: str, turn: Turn = None) -> None:
    """Copy one chunk from an open file; errors as for `take`.

    Args:
        chunk: verified.
        origin: a descriptor that can be read, untrusted.
        start: where the chunk begins there, in bytes.
        write, subject, turn: as for `take`.
    """
    state, done = hashlib.sha256(), 0
    buffer = memoryview(bytearray(min(BLOCK_BYTES if turn is None else TURN_BYTES, chunk.size)))
    # What is asked for ahead is read outside of a turn: then the disk would seek after each small piece.
    ahead = _AHEAD_BYTES if turn is None else 0
    if ahead:
        _ask_for(origin, start, min(ahead, chunk.size))
    while done < chunk.size:
        if ahead and done + ahead < chunk.size:
            _ask_for(origin, start + done + ahead, BLOCK_BYTES)
        with turn or nullcontext():
            count = _read(origin, buffer[: chunk.size - done], start + done, subject)
        if not count:
            break
        block = buffer[:count]
        state.update(block)
        write(block, done)
        done += count
    found = state.hexdigest()
    if done != chunk.size or found != chunk.sha256:
        raise DamagedError(
            "contents.file-changed",
            subject,
            expected=f"{chunk.size} bytes with sha256 {chunk.sha256}",
            found=f"{done} bytes with sha256 {found}",
            hint="copy it again: run the same `appliance install` or `stick write`",
        )


def writing_to(destination: int, at: int) -> Write:
    """Write to an open file from an offset on, in bytes."""

    def write(block: memoryview, done: int) -> None:
        while block:
            written = os.pwrite(destination, block, at + done)
            block, done = block[written:], done + written

    return write


def _ask_for(origin: int, start: int, size: int) -> None:
    os.posix_fadvise(origin, start, size, os.POSIX_FADV_WILLNEED)


def _read(origin: int, buffer: memoryview, start: int, subject: str) -> int:
    try:
        return os.preadv(origin, [buffer], start)
    except OSError as error:
        raise DamagedError(
            "medium.read-failed",
            subject,
            expected="readable bytes",
            found=error.strerror or "",
            hint="plug the stick in again, or copy it again",
        ) from None
