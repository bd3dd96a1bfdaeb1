"""Turning a source file into chunks in a bundle, in one pass.

Owns the writing side of FORMAT 4: read a file once, hash it for three purposes (chunk, whole file, fs-verity), and put
each chunk into the layout under its digest. It decides nothing about what belongs into a bundle.

Rules:
- a GGUF that our parser refuses is not a bundle file;
- a blob that is there with the right bytes is left alone; one that differs is replaced;
- memory is one chunk (64 MiB) at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.build.writer import BundleWriter
from bundles.contents import Chunk, File, Member
from bundles.cuts import cut_gguf, cut_plain
from bundles.fsverity import VerityHasher
from bundles.gguf import GgufHeader, read_header
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is to go into a bundle.

    Args:
        path: in the bundle.
        kind: of FORMAT 3.
        file: where its bytes are now; None where `data` holds them.
        data: small bytes made by the build itself.
        mode: 0o644 or 0o755.
        sha256: what the lock says of its bytes; None for bytes that the build made itself.
        bootstrap: whether a bare host needs it first.
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


def store(source: Source, writer: BundleWriter, on_progress: OnProgress = ignore) -> tuple[File, GgufHeader | None]:
    """Put a source into a bundle.

    Args:
        source: its bytes are compared with the lock's digest while they are read.
        writer: the bundle that is being made.
        on_progress: called with bytes done.

    Returns:
        The entry for `contents.json`, and the GGUF header of a model.

    Raises:
        DamagedError: the bytes are not those of the lock (code `source.differs-from-lock`).
        NotTrustedError: a GGUF that the parser refuses.
        ApplianceError: the source vanished, or the disk is full.
    """
    if source.file is None:
        chunks = tuple(writer.put(source.data[at : at + size]) for at, size in _starts(cut_plain(len(source.data))))
        return _entry(source, chunks, len(source.data), sha256(source.data), None), None
    try:
        size = source.file.stat().st_size
        with source.file.open("rb") as stream:
            header = read_header(stream, size, source.path) if source.kind == "model" else None
            sizes = cut_gguf(header) if header else cut_plain(size)
            stream.seek(0)
            return _store_stream(source, stream, sizes, writer, on_progress), header
    except FileNotFoundError:
        raise ApplianceError(
            "source.vanished", str(source.file), expected="a file", found="none", hint="run the same command again"
        ) from None


def _store_stream(
    source: Source, stream: BinaryIO, sizes: tuple[int, ...], writer: BundleWriter, on_progress: OnProgress
) -> File:
    whole, verity = hashlib.sha256(), VerityHasher()
    chunks, done, total = [], 0, sum(sizes)
    for size in sizes:
        data = stream.read(size)
        whole.update(data)
        if source.kind == "model":
            verity.update(data)
        chunks.append(writer.put(data))
        done += len(data)
        on_progress(Progress(f"packing {source.path}", done, total))
    digest = Digest(whole.hexdigest())
    if source.sha256 not in (None, digest):
        raise DamagedError(
            "source.differs-from-lock",
            source.path,
            expected=f"sha256 {source.sha256}",
            found=f"sha256 {digest}",
            hint="the cached source changed on disk: run the same command again, it will be fetched anew",
        )
    return _entry(source, tuple(chunks), done, digest, verity.digest() if source.kind == "model" else None)


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


def _starts(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    at, starts = 0, []
    for size in sizes:
        starts.append((at, size))
        at += size
    return starts
