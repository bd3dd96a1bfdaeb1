"""Copies blobs to a file in one pass (docs/architecture.md, Sticks).

Owns the copy: each byte of the medium is read once, hashed while it is copied, and written once at its final offset. It
must never use a byte that was not hashed in this pass, and never leaves a half-written file under the final name.

Rules (threats T16, T25, T35):
- the work file is `<name>.partial`; what an interrupted run left there is hashed again, chunk by chunk, before it
  counts;
- fsync, then rename, then fsync of the folder; a file that is already right keeps its inode and its times;
- a wrong file under the final name is replaced by a new inode.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundles.chunks.check import changed, check_file, hash_range, placed
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import ChunkSource, Seeds
from bundles.contents.contents import File
from bundles.medium import explain_write, sync_folder
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import DamagedError, NotTrustedError

_COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class CopyJob:
    """A file to be put together.

    Args:
        file: verified.
        destination: the final path; its folder is made where it is missing.
        mode: permission bits instead of the file's own, for example 0o444 in a store.
    """

    file: File
    destination: Path
    mode: int | None = None


@dataclass(frozen=True)
class CopyCount:
    """What a copy did.

    Args:
        copied, copied_bytes: files that were made, and their size.
        kept: files that were right already.
        medium_bytes, held_bytes: what was read from the medium, and what came from files of this host.
    """

    copied: int
    copied_bytes: int
    kept: int
    medium_bytes: int
    held_bytes: int


def copy_files(
    jobs: Sequence[CopyJob],
    source: ChunkSource,
    seeds: Seeds | None = None,
    on_progress: OnProgress = ignore,
    task: str = "copying",
) -> CopyCount:
    """Assemble files from their chunks: each chunk is read once, hashed while it is copied, and written in its place.

    Args:
        jobs: in the order in which they are begun.
        source: untrusted; where it has `wait_for`, this is called when nothing is left that it holds.
        seeds: places on this host that may hold chunks.
        on_progress: called with bytes done of all files, in any thread, one call at a time.
        task: of `Progress`.

    Raises:
        NextStickError: raised by the source; what is there is kept for the next run.
        DamagedError, NotTrustedError, ApplianceError: as `copy_file`.
    """
    total, before, copied, copied_bytes = sum(job.file.size for job in jobs), 0, 0, 0
    for job in jobs:
        if copy_file(job.file, source.open_chunk, job.destination, mode=job.mode):
            copied, copied_bytes = copied + 1, copied_bytes + job.file.size
        before += job.file.size
        on_progress(Progress(task, before, total))
    return CopyCount(copied, copied_bytes, len(jobs) - copied, copied_bytes, 0)


def copy_file(
    file: File,
    open_chunk: Callable[[Chunk], int],
    destination: Path,
    on_progress: OnProgress = ignore,
    mode: int | None = None,
) -> bool:
    """Assemble a file of the bundle from its blobs.

    Args:
        file: verified.
        open_chunk: opens a blob, untrusted, for reading; the descriptor is closed here.
        destination: the final path; its folder is made where it is missing.
        on_progress: called with bytes done.
        mode: permission bits instead of the file's own, for example 0o444 in a store.

    Returns:
        False where the right file was there already and was left alone.

    Raises:
        DamagedError: a blob differs from its signed digest; nothing appears under the final name.
        NotTrustedError: a blob is longer than signed.
        ApplianceError: the disk is full (code `disk.full`); the next run goes on from there.
    """
    bits = file.mode if mode is None else mode
    partial = destination.with_name(f"{destination.name}.partial")
    if destination.exists() and _is_right(file, destination):
        if destination.stat().st_mode & 0o7777 != bits:
            destination.chmod(bits)
        partial.unlink(missing_ok=True)
        return False
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_partial(partial)
        try:
            _fill(file, open_chunk, descriptor, on_progress)
            os.fchmod(descriptor, bits)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, destination)
        sync_folder(destination.parent)
    except OSError as error:
        raise explain_write(error, destination, file.size) from None
    return True


def _open_partial(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except PermissionError:
        # An interrupted run had finished it: it has the mode of the file already, which may be read-only.
        finished = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(finished, 0o600)
        finally:
            os.close(finished)
        return os.open(path, flags, 0o600)


def _is_right(file: File, path: Path) -> bool:
    try:
        check_file(file, path)
    except (DamagedError, NotTrustedError):
        return False
    return True


def _fill(file: File, open_chunk: Callable[[Chunk], int], descriptor: int, on_progress: OnProgress) -> None:
    had = os.fstat(descriptor).st_size
    os.truncate(descriptor, min(had, file.size))
    resuming = had > 0
    for start, chunk in placed(file):
        # The part of an interrupted run counts only as far as it hashes to what was signed.
        resuming = resuming and had >= start + chunk.size and hash_range(descriptor, start, chunk.size) == chunk.sha256
        if not resuming:
            _copy_chunk(file, chunk, open_chunk(chunk), descriptor, start)
        on_progress(Progress(f"copying {file.path}", start + chunk.size, file.size))
    os.truncate(descriptor, file.size)


def _copy_chunk(file: File, chunk: Chunk, source: int, descriptor: int, start: int) -> None:
    state, done = hashlib.sha256(), 0
    try:
        if os.fstat(source).st_size > chunk.size:
            raise NotTrustedError("blob.too-long", file.path, expected=f"{chunk.size} bytes", found="more")
        while done < chunk.size:
            block = _read(file, source, min(_COPY_BYTES, chunk.size - done))
            if not block:
                break
            state.update(block)
            _write(descriptor, block, start + done)
            done += len(block)
    finally:
        os.close(source)
    if done != chunk.size or state.hexdigest() != chunk.sha256:
        raise changed(
            file,
            f"{chunk.size} bytes with sha256 {chunk.sha256} at byte {start}",
            f"{done} bytes with sha256 {state.hexdigest()}",
        )


def _read(file: File, source: int, size: int) -> bytes:
    try:
        return os.read(source, size)
    except OSError as error:
        raise DamagedError(
            "medium.read-failed",
            file.path,
            expected="readable bytes",
            found=error.strerror or "",
            hint="copy the stick again",
        ) from None


def _write(descriptor: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, at)
        view = view[written:]
        at += written
