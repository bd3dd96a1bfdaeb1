"""Compares blobs and files with the signed list of chunks.

Owns the hashing of blobs and of files. Trust in a file is its chunk list (FORMAT 4): every chunk is read once and
hashed, several at a time. It must never stop at the first difference: all of them are reported at once.

Rules:
- a blob that is longer than signed is not trusted (exit 4); one that is missing, shorter or different is damaged (3);
- errors name the file of the bundle, not only the blob;
- memory is 256 KiB for each thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundles.attestation.attestation_check import Attested
from bundles.bare_host.boot_check import Boot
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.medium import NOT_A_FILE, REWRITTEN_HINT
from bundles.medium_check import CheckedMedium, check_medium
from bundles.oci.layout import Layout
from bundles.parallel import judge_all
from bundles.progress import OnProgress, ignore
from signing.errors import ApplianceError, DamagedError, NotTrustedError, worst
from signing.verified import Verified

_READ_BYTES = 256 << 10
CHANGED = "contents.file-changed"


@dataclass(frozen=True)
class Checked:
    """How much was compared: files, distinct blobs, bytes read, and the signatures in other formats."""

    files: int
    blobs: int
    size_bytes: int
    attested: tuple[Attested, ...] = ()


def check_all(layout: Layout, found: Verified[Bundle], on_progress: OnProgress = ignore) -> tuple[Checked, Boot | None]:
    """Compare everything on a medium: every blob, every name, every attestation, and `BOOT/`.

    Args:
        layout: untrusted bytes.
        found: the bundle that lies there.
        on_progress: called with bytes done.

    Raises:
        NotTrustedError: as `check_blobs` and `bundles.medium_check.check_medium`; beats damaged.
        DamagedError: likewise; the faults of both are reported together.
    """
    errors: list[ApplianceError] = []
    checked, beside = Checked(0, 0, 0), CheckedMedium(None, ())
    try:
        beside = check_medium(layout, (found,))
    except ApplianceError as error:
        errors += [error, *error.others]
    try:
        checked = check_blobs(layout, found.value, on_progress)
    except ApplianceError as error:
        errors += [error, *error.others]
    if errors:
        raise worst(errors)
    return replace(checked, attested=beside.attested), beside.boot


def check_blobs(layout: Layout, bundle: Bundle, on_progress: OnProgress = ignore) -> Checked:
    """Hash every blob of a bundle.

    Args:
        layout: untrusted bytes.
        bundle: verified.
        on_progress: called with bytes done, in any thread, one call at a time.

    Returns:
        What was compared; each byte was read once.

    Raises:
        NotTrustedError: a blob is longer than signed; beats damaged.
        DamagedError: blobs that differ or cannot be read; each named by its files.
    """
    users = files_by_chunk(bundle)
    errors = list(find_differences(layout, users, on_progress).values())
    if errors:
        raise worst(errors)
    return Checked(len(bundle.contents.files), len(users), sum(chunk.size for chunk in users))


def check_file(file: File, path: Path, on_progress: OnProgress = ignore) -> None:
    """Compare one file on disk with its signed chunks.

    Args:
        file: verified.
        path: untrusted; opened without following a link.
        on_progress: called with bytes done.

    Raises:
        DamagedError: code `contents.file-changed`, naming the file of the bundle and the bytes that differ; or code
            `contents.file-unreadable`.
        NotTrustedError: it is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise changed(file, f"{file.size} bytes", f"no file at {path}") from None
    except OSError as error:
        if error.errno in NOT_A_FILE:
            raise _hostile(file, "a link or another kind of file") from None
        raise DamagedError(
            "contents.file-unreadable",
            file.path,
            expected="a file that can be opened",
            found=error.strerror or "",
            hint="check the disk, and the owner and mode of the file; then install again",
        ) from None
    try:
        # A FIFO has no bytes, and would pass for an empty file.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _hostile(file, "another kind of file")
        check_descriptor(file, descriptor, on_progress)
    finally:
        os.close(descriptor)


def check_descriptor(file: File, descriptor: int, on_progress: OnProgress = ignore) -> None:
    """Compare what an open descriptor holds with the file's signed chunks, as `check_file` does; on all cores."""
    size = os.fstat(descriptor).st_size
    if size != file.size:
        raise changed(file, f"{file.size} bytes", f"{size} bytes")
    places = {place: place[1].size for place in placed(file)}
    differences = judge_all(
        places, lambda place: _difference(file, descriptor, *place), f"checking {file.path}", on_progress
    )
    if differences:
        raise next(iter(differences.values()))


def _difference(file: File, descriptor: int, start: int, chunk: Chunk) -> ApplianceError | None:
    span = f"bytes {start} to {start + chunk.size - 1}"
    try:
        found = hash_range(descriptor, start, chunk.size)
    except OSError as error:
        return DamagedError(
            "contents.file-unreadable",
            file.path,
            expected=f"{span} to be readable",
            found=error.strerror or "",
            hint="look at the disk, then copy it again: run the same `appliance install` or `stick write`",
        )
    if found == chunk.sha256:
        return None
    return changed(file, f"{span} with sha256 {chunk.sha256}", f"sha256 {found}")


def placed(file: File) -> Iterator[tuple[int, Chunk]]:
    """The file's chunks with the offset of each, in bytes."""
    at = 0
    for chunk in file.chunks:
        yield at, chunk
        at += chunk.size


def hash_range(descriptor: int, start: int, size: int) -> str:
    """sha256 of `size` bytes of an open file from `start`, read with `pread`; shorter where the file ends."""
    state = hashlib.sha256()
    # One block that stays in the processor's cache, filled again and again.
    view = memoryview(bytearray(min(_READ_BYTES, size)))
    while size:
        got = os.preadv(descriptor, [view[:size]], start)
        if not got:
            break
        state.update(view[:got])
        start += got
        size -= got
    return state.hexdigest()


def changed(file: File, expected: str, found: str) -> DamagedError:
    """The error for a file that is not what was signed."""
    return DamagedError(
        CHANGED,
        file.path,
        expected=expected,
        found=found,
        hint="copy it again: run the same `appliance install` or `stick write`",
    )


def _hostile(file: File, found: str) -> NotTrustedError:
    return NotTrustedError("file.hostile", file.path, expected="a regular file", found=found)


def find_differences(
    layout: Layout, users: Mapping[Chunk, list[str]], on_progress: OnProgress = ignore
) -> dict[Chunk, ApplianceError]:
    """Hash blobs of one medium, on all cores.

    Args:
        layout: untrusted.
        users: the blobs, each with the files that need it; see `files_by_chunk`.
        on_progress: called with bytes done.

    Returns:
        What is wrong, in the order of the blobs; nothing where every one is right.
    """
    # The longest first, so that no thread is left alone with a long one at the end.
    sizes = {chunk: chunk.size for chunk in sorted(users, key=lambda chunk: -chunk.size)}
    found = judge_all(sizes, lambda chunk: check_blob(layout, chunk, users[chunk]), "checking blobs", on_progress)
    return {chunk: found[chunk] for chunk in users if chunk in found}


def check_blob(layout: Layout, chunk: Chunk, places: Sequence[str]) -> ApplianceError | None:
    """Compare one blob of a medium with its digest.

    Args:
        layout: untrusted.
        chunk: verified.
        places: the files that need it, for the error.

    Returns:
        What is wrong, or None.
    """
    subject = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    try:
        descriptor = layout.open_chunk(chunk)
    except ApplianceError as error:
        error.subject = f"{subject} ({error.subject})"
        return error
    try:
        size = os.fstat(descriptor).st_size
        if size > chunk.size:
            return NotTrustedError(
                "blob.too-long",
                subject,
                expected=f"{chunk.size} bytes",
                found=f"{size} bytes",
                hint=f"do not use it: {REWRITTEN_HINT}; if it is refused again, ask a key holder",
            )
        found = hash_range(descriptor, 0, chunk.size)
    except OSError as error:
        return DamagedError(
            "blob.unreadable", subject, expected="readable bytes", found=error.strerror or "", hint="copy it again"
        )
    finally:
        os.close(descriptor)
    if found == chunk.sha256:
        return None
    hint = "write the stick again, or copy this bundle again" if size == chunk.size else REWRITTEN_HINT
    return DamagedError(CHANGED, subject, expected=f"blob sha256 {chunk.sha256}", found=f"sha256 {found}", hint=hint)


def files_by_chunk(*bundles: Bundle) -> dict[Chunk, list[str]]:
    """The chunks of bundles, each once, with the paths of the files that need it, in the order of the bundles."""
    users: dict[Chunk, list[str]] = {}
    for file in (file for bundle in bundles for file in bundle.contents.files):
        for chunk in file.chunks:
            places = users.setdefault(chunk, [])
            if not places or places[-1] != file.path:
                places.append(file.path)
    return users
