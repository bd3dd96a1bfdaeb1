"""Writes blobs to a stick: in batches of up to 64 MiB, by two threads, or by one beside other sticks.

Owns how a blob gets from a bundle to a stick. Each byte is read once and hashed while it is written. A name appears
only when the bytes behind it are durable and have the signed digest.

Rules:
- blobs wait for one another: up to 256 new files of 64 MiB together, one `syncfs`, then their names, then `syncfs` once
  more. On FAT32 this takes a fifth of the time;
- a blob that is a batch by itself is a new file, fsync, rename, fsync of the folder;
- an interrupt is noticed before each block; the parts of a batch that have no name yet are removed;
- a failed `syncfs` or fsync is final: the kernel reports it once, and asking again would give a wrong answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource
from bundles.chunks.transfer import take
from bundles.durability import start_writing
from bundles.medium import explain_write, sync_folder
from bundles.oci.layout import BLOB_FOLDER, Layout, blob_path
from bundles.parallel import work_off
from bundles.progress import OnProgress, Progress
from bundles.stick.writing.pace import ALONE, Pace
from bundles.stick.writing.read_back import make_durable
from signing.errors import ApplianceError, DamagedError

BATCH_BLOBS, BATCH_BYTES = 256, 64 << 20
"""A stick that is pulled out loses no more than a batch of each thread."""
WRITING_THREADS = 2
"""Two are enough that reading, hashing and writing overlap; more would make a stick write in more places at a time."""
_START_EVERY_BYTES = 8 << 20
_BLAMED = {
    "contents.file-changed": (
        "blob.differs",
        "the bundle itself is damaged: build it again, then write the stick",
    ),
    "medium.read-failed": (
        "blob.unreadable",
        "the bundle itself cannot be read: look at the disk that it lies on",
    ),
}
"""Code and hint of a fault in the bundle from which a stick is written, by the code of the copy."""


def write_blobs(
    source: ChunkSource, stick: Layout, chunks: Sequence[Chunk], on_progress: OnProgress, pace: Pace = ALONE
) -> None:
    """Write blobs to a stick; those that lie there under these names are replaced.

    Args:
        source: untrusted.
        stick: with room for them.
        chunks: verified: digests and sizes.
        on_progress: called with bytes done, in any thread, one call at a time.
        pace: what this stick may use, where others are written at the same time.

    Raises:
        DamagedError: the source differs from what was signed.
        NotTrustedError: the source has a blob that is longer than signed.
        ApplianceError: no space is left on the stick (code `disk.full`), or it refuses writing.
    """
    writer = _BlobWriter(source, stick, sum(chunk.size for chunk in chunks), on_progress, pace)
    writer.begin()
    try:
        work_off(tuple(_batches(chunks)), writer.write, pace.threads or WRITING_THREADS)
    except OSError as error:
        raise explain_write(error, stick.path, writer.left_bytes) from None
    finally:
        stick.medium.remove_parts()


def check_device(folder: Path, device: int) -> None:
    """Refuse a folder that lies on another device than before: the stick was unmounted, and this is what lay below it.

    Raises:
        OSError: ENODEV.
    """
    if os.stat(folder).st_dev != device:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def _batches(chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    batch: list[Chunk] = []
    for chunk in chunks:
        if batch and (len(batch) == BATCH_BLOBS or sum(one.size for one in (*batch, chunk)) > BATCH_BYTES):
            yield tuple(batch)
            batch = []
        batch.append(chunk)
    if batch:
        yield tuple(batch)


class _BlobWriter:
    """Writes one batch after the other, in any thread."""

    def __init__(self, source: ChunkSource, stick: Layout, total: int, on_progress: OnProgress, pace: Pace) -> None:
        self._source = source
        self._stick = stick
        self._total = self.left_bytes = total
        self._on_progress = on_progress
        self._pace = pace
        self._names = map(str, count())
        self._device = os.stat(stick.path).st_dev
        self._lock = Lock()

    def begin(self) -> None:
        """Show where it begins: the first batch takes a while."""
        if self._total:
            self._report(0)

    def write(self, batch: tuple[Chunk, ...]) -> None:
        parts: dict[str, Chunk] = {}
        try:
            for chunk in batch:
                name = next(self._names)
                self._write_part(name, chunk, alone=len(batch) == 1)
                parts[name] = chunk
        except (OSError, ApplianceError):
            # What is whole keeps its place: the next run goes on after it. A stick that is gone keeps nothing.
            with suppress(OSError, ApplianceError):
                self._name(parts, alone=False)
            raise
        self._name(parts, alone=len(batch) == 1)

    def _write_part(self, name: str, chunk: Chunk, *, alone: bool) -> None:
        with self._stick.medium.create_part(name) as stream:
            _copy(self._source, chunk, stream, self._pace)
            stream.flush()
            if alone:
                os.fsync(stream.fileno())
            else:
                start_writing(stream.fileno())

    def _name(self, parts: Mapping[str, Chunk], *, alone: bool) -> None:
        medium = self._stick.medium
        check_device(self._stick.path, self._device)
        if not alone:
            make_durable(self._stick.path)
        for name, chunk in parts.items():
            medium.place_part(name, blob_path(chunk.sha256))
        if alone:
            sync_folder(self._stick.path / BLOB_FOLDER)
        else:
            make_durable(self._stick.path)
        self._report(sum(chunk.size for chunk in parts.values()))

    def _report(self, size: int) -> None:
        with self._lock:
            self.left_bytes -= size
            self._on_progress(Progress("writing the stick", self._total - self.left_bytes, self._total))


def _copy(source: ChunkSource, chunk: Chunk, stream: BinaryIO, pace: Pace) -> None:
    """Copy a blob into a new file; an error blames the bundle that it comes from."""

    def write(block: memoryview, done: int) -> None:
        pace.require_going()
        stream.write(block)
        if (done + len(block)) % _START_EVERY_BYTES == 0:
            start_writing(stream.fileno())

    try:
        take(source.open_chunk, chunk, write, blob_path(chunk.sha256), turn=pace.turn)
    except DamagedError as error:
        code, hint = _BLAMED.get(error.code, (error.code, error.hint))
        raise DamagedError(code, error.subject, expected=error.expected, found=error.found, hint=hint) from None
