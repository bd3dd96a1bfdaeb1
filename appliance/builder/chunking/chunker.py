"""Turning source files into chunks in a bundle, in one pass.

Owns the writing side of FORMAT 4. Each file is read once and hashed three times at that: as chunks, as a whole, and for
fs-verity. Each chunk is put into the layout under its digest. It decides nothing about what belongs into a bundle.

Rules:
- a GGUF that our parser refuses is not a bundle file;
- a blob that is there with the right bytes is left as it is; one that differs is replaced;
- the bytes that are hashed are those that are written: a source that changes while it is read cannot add others;
- memory is that of `HashPool`, however large the files are.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.chunking.hash_pool import HashPool, Piece
from appliance.builder.chunking.known_headers import known_header
from bundles.chunks.boundaries import cut_gguf, cut_plain
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File, Member
from bundles.fsverity_digest import VerityHasher
from bundles.gguf.header import GgufHeader, read_header
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256, sha256_stream
from signing.errors import ApplianceError, DamagedError, NotTrustedError

DIFFERS = "source.differs-from-lock"
SMALL_SOURCE_BYTES = 64 << 10
Stored = tuple[File, GgufHeader | None]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is to go into a bundle.

    Args:
        path: in the bundle.
        kind: of FORMAT 3.
        file: the path of its bytes; None where `data` holds them.
        data: the bytes of a small file that the build itself writes.
        mode: 0o644 or 0o755.
        sha256: as the lock pins it; None for a file that the build itself writes.
        bootstrap: whether a bare host needs it before anything else runs.
        record: digest of a wheel's RECORD.
        members: programs and libraries of a runtime wheel.
    """

    path: str
    kind: str
    file: Path | None = None
    data: bytes = b""
    mode: int = 0o644
    sha256: Digest | None = None
    bootstrap: bool = False
    record: Digest | None = None
    members: tuple[Member, ...] = ()


def store(source: Source, writer: BundleWriter, on_progress: OnProgress = ignore) -> Stored:
    """Put one source into a bundle, as `store_all` does."""
    [stored] = store_all([source], writer, on_progress)
    return stored


def store_all(sources: Iterable[Source], writer: BundleWriter, on_progress: OnProgress = ignore) -> list[Stored]:
    """Put sources into a bundle.

    Args:
        sources: their bytes are compared with the lock's digests while they are read.
        writer: of the bundle that is being written.
        on_progress: called with bytes read, in this thread.

    Returns:
        For each source its entry for `contents.json`; for a model its GGUF header, too.

    Raises:
        DamagedError: the bytes are not those of the lock (code `source.differs-from-lock`).
        NotTrustedError: a GGUF that the parser refuses.
        ApplianceError: a source vanished, or the disk is full.
    """
    with HashPool() as hashers:
        begun = [_begin(source, writer, hashers, on_progress) for source in sources]
        return [finish() for finish in begun]


def _begin(source: Source, writer: BundleWriter, hashers: HashPool, on_progress: OnProgress) -> Callable[[], Stored]:
    if source.file is None:
        return _begin_stream(source, io.BytesIO(source.data), len(source.data), writer, hashers, on_progress)
    try:
        with source.file.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            return _begin_stream(source, stream, size, writer, hashers, on_progress)
    except FileNotFoundError:
        raise ApplianceError(
            "source.vanished", str(source.file), expected="a file", found="none", hint="run the same command again"
        ) from None


def _begin_stream(
    source: Source, stream: BinaryIO, size: int, writer: BundleWriter, hashers: HashPool, on_progress: OnProgress
) -> Callable[[], Stored]:
    header = _header(source, stream, size) if source.kind == "model" else None
    stream.seek(0)
    sizes = cut_gguf(header) if header else cut_plain(size)
    if header is None and 0 < size <= SMALL_SOURCE_BYTES:
        return _store_small(source, stream, size, writer, on_progress)
    whole = hashlib.sha256() if len(sizes) != 1 else None  # one chunk: its digest is the file's
    verity = VerityHasher() if source.kind == "model" else None
    puts: list[Future[Chunk]] = []
    last: list[Future[None]] = []
    done = 0
    for part in sizes:
        piece = hashers.read(stream, part)
        done += len(piece.view)
        last = _share(piece, whole, verity, hashers)
        puts.append(hashers.run(writer.put, piece))
        piece.release()
        on_progress(Progress(f"packing {source.path}", done, size))
    has_more = bool(stream.read(1))

    def finish() -> Stored:
        for future in last:
            future.result()
        chunks = tuple(put.result() for put in puts)
        digest = Digest(whole.hexdigest()) if whole is not None else chunks[0].sha256
        _check(source, size, sum(chunk.size for chunk in chunks) + has_more, digest)
        return _entry(source, chunks, size, digest, verity.digest() if verity is not None else None), header

    return finish


def _store_small(
    source: Source, stream: BinaryIO, size: int, writer: BundleWriter, on_progress: OnProgress
) -> Callable[[], Stored]:
    # In this thread: handing it to another one takes longer.
    data = stream.read(size + 1)
    if len(data) != size:
        _check(source, size, len(data), sha256(data))
    chunk = writer.put(data)
    on_progress(Progress(f"packing {source.path}", size, size))

    def finish() -> Stored:
        _check(source, size, size, chunk.sha256)
        return _entry(source, (chunk,), size, chunk.sha256, None), None

    return finish


def _header(source: Source, stream: BinaryIO, size: int) -> GgufHeader:
    if known := known_header(stream) if source.file is not None else None:
        return known
    stream.seek(0)
    try:
        return read_header(stream, size, source.path)
    except NotTrustedError:
        # Damaged where the digest is not the one that the lock pins; otherwise the model itself is refused.
        stream.seek(0)
        _check(source, size, size, sha256_stream(stream)[0])
        raise


def _share(
    piece: Piece, whole: hashlib._Hash | None, verity: VerityHasher | None, hashers: HashPool
) -> list[Future[None]]:
    # Both get the pieces in order: when the last piece is done, all are.
    futures = []
    if whole is not None:
        futures.append(hashers.run(whole.update, piece, in_order="whole"))
    if verity is not None:
        futures.append(hashers.run(verity.update, piece, in_order="verity"))
    return futures


def _check(source: Source, expected_size: int, found_size: int, digest: Digest) -> None:
    if found_size != expected_size:
        raise DamagedError(
            "source.changed",
            str(source.file or source.path),
            expected=f"{expected_size} bytes, as when reading began",
            found="more" if found_size > expected_size else f"{found_size} bytes",
            hint="another program writes to this file: let it finish, then run the same command again",
        )
    if source.sha256 not in (None, digest):
        raise DamagedError(
            DIFFERS,
            source.path,
            expected=f"sha256 {source.sha256}, as the lock pins it",
            found=f"sha256 {digest}",
            hint="the source changed on this disk: run the same command again; a cached file is fetched again",
        )


def _entry(source: Source, chunks: tuple[Chunk, ...], size: int, digest: Digest, verity: Digest | None) -> File:
    return File(
        path=source.path,
        kind=source.kind,
        mode=source.mode,
        size=size,
        sha256=digest,
        chunks=chunks,
        fsverity=verity,
        bootstrap=source.bootstrap,
        record=source.record,
        members=source.members,
    )
