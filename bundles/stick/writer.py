"""Writes a bundle to a stick, and proves that it arrived (docs/architecture.md, Sticks).

Owns what a stick carries: the layout's small files whole and the blobs. It must never delete what it finds there, but
for files of an older writing of the same bundle: of `BOOT/`, metadata, and signatures in other formats.

Rules:
- only blobs that the stick does not hold are written; a new file, fsync, rename;
- afterwards every file is read back from the medium, past the cache, and what differs is written once more;
- names are made durable before that, so that a stick can be pulled once it is reported as written;
- source and stick pass the same check of names, metadata and `BOOT/` as `verify` makes;
- a stick that holds another bundle is refused rather than mixed;
- `STICK.json` holds hints for people and has no authority.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundles.bare_host.boot_check import MAX_FILE_BYTES
from bundles.bundle import Bundle
from bundles.chunks.check import Checked, hash_range
from bundles.chunks.chunk import Chunk
from bundles.durability import sync_file_system
from bundles.medium import explain_write
from bundles.medium_check import CheckedMedium, check_kinds, check_medium
from bundles.oci.covered_names import is_attestation_path, is_boot_path, is_metadata_path
from bundles.oci.layout import (
    ATTESTATIONS,
    BLOBS,
    BOOT,
    INDEX_FILE,
    LAYOUT_FILE,
    METADATA,
    README_FILE,
    STICK_FILE,
    TARGETS,
    Layout,
    blob_path,
)
from bundles.oci.manifest import MAX_INDEX_BYTES, parse_index_of_one
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import sha256
from signing.errors import DamagedError, NotTrustedError, UsageError
from signing.strictjson import to_file
from signing.verified import Verified


@dataclass(frozen=True)
class Written:
    """What a write did: blobs that had to be written, their bytes, what the re-read compared, and what lies beside."""

    blobs: int
    size_bytes: int
    checked: Checked
    beside: CheckedMedium


def write_stick(
    source: Layout, found: Verified[Bundle], destination: Path, on_progress: OnProgress = ignore
) -> Written:
    """Write all of a bundle to one stick.

    Args:
        source: the bundle's layout.
        found: the bundle, verified there.
        destination: the stick's folder; made where it is missing.
        on_progress: called with bytes written, then with bytes read back.

    Returns:
        What was written and checked.

    Raises:
        NotTrustedError: something lies in the source or on the stick that does not belong there.
        DamagedError: the source differs from what was signed, or the stick does not keep what is written to it.
        UsageError: the stick holds another bundle.
        ApplianceError: no space left on the stick (code `disk.full`).
    """
    check_medium(source, (found,))
    stick, bundle = Layout(destination), found.value
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write(error, destination, bundle.contents.size_bytes) from None
    _check_free(stick, bundle)
    blobs = bundle.blobs
    held = set(stick.medium.list("blobs/sha256"))
    wanted = {blob_path(chunk.sha256): chunk for chunk in blobs}
    missing = {path: chunk for path, chunk in wanted.items() if chunk.sha256 not in held}
    _write_files(source, stick, missing, on_progress)
    small = _write_small_files(source, stick)
    _remove_older(stick, small)
    differing = _differing(stick, wanted | small, on_progress)
    _write_files(source, stick, differing, on_progress)
    if _differing(stick, differing, ignore):
        raise DamagedError(
            "stick.does-not-keep",
            str(destination),
            expected="the bytes that were written to it",
            found="other bytes when read back",
            hint="this medium is worn out or a fake; use another one",
        )
    beside = check_medium(stick, (found,))
    fresh = [*missing.values(), *(chunk for path, chunk in differing.items() if path in wanted)]
    checked = Checked(len(bundle.contents.files), len(blobs), sum(chunk.size for chunk in blobs))
    return Written(len(fresh), sum(chunk.size for chunk in fresh), checked, beside)


def _check_free(stick: Layout, bundle: Bundle) -> None:
    check_kinds(stick)
    other = None
    index = stick.medium.read(INDEX_FILE, MAX_INDEX_BYTES)
    try:
        if index is None:
            wanted = {blob_path(chunk.sha256) for chunk in bundle.blobs}
            strange = next((path for path in stick.medium.walk(BLOBS) if path not in wanted), None)
            other = f"other files: {strange}" if strange else None
        elif (named := parse_index_of_one(index).sha256) != bundle.manifest:
            other = f"a stick of manifest {named[:12]}"
    except NotTrustedError as error:
        # A damaged index is written anew; what is no file is refused.
        if error.code == "medium.hostile":
            raise
    if other is not None:
        raise UsageError(
            "stick.other-bundle",
            str(stick.path),
            expected=f"an empty folder, or a stick of {bundle.label} (manifest {bundle.manifest[:12]})",
            found=other,
            hint="use an empty stick or folder",
        )


def _write_files(source: Layout, stick: Layout, files: Mapping[str, Chunk], on_progress: OnProgress) -> None:
    total, done = sum(chunk.size for chunk in files.values()), 0
    for path, chunk in files.items():
        _write_file(source, stick, path, chunk)
        done += chunk.size
        on_progress(Progress("writing the stick", done, total))


def _write_file(source: Layout, stick: Layout, path: str, chunk: Chunk) -> None:
    data = source.medium.read(path, chunk.size)
    found = sha256(data) if data is not None else "no file"
    if data is None or found != chunk.sha256:
        raise DamagedError(
            "blob.differs",
            path,
            expected=f"sha256 {chunk.sha256}",
            found=found,
            hint="the bundle itself is damaged: build it again, then write the stick",
        )
    stick.medium.write(path, data)


def _write_small_files(source: Layout, stick: Layout) -> dict[str, Chunk]:
    """Write what lies beside the blobs; what was written where."""
    written: dict[str, Chunk] = {}
    stick.medium.write(STICK_FILE, to_file({"number": 1, "of": 1}))
    paths = [path for folder in (METADATA, TARGETS, ATTESTATIONS, BOOT) for path in source.medium.walk(folder)]
    # The index comes last: a stick without it does not look like a bundle.
    for path in (*paths, LAYOUT_FILE, README_FILE, INDEX_FILE):
        data = source.medium.read(path, MAX_FILE_BYTES)
        if data is not None and len(data) > MAX_FILE_BYTES:
            raise NotTrustedError("file.too-long", path, expected=f"at most {MAX_FILE_BYTES} bytes", found="more")
        if data is not None:
            stick.medium.write(path, data)
            written[path] = Chunk(sha256(data), len(data))
    return written


def _remove_older(stick: Layout, paths: Iterable[str]) -> None:
    # BOOT is one signed whole: a serial or key of an earlier one would make the new one a refusal. So would metadata
    # that nothing leads to, and an attestation by a key that was revoked since.
    ours = ((BOOT, is_boot_path), (METADATA, is_metadata_path), (ATTESTATIONS, is_attestation_path))
    for folder, is_ours in ours:
        for path in [path for path in stick.medium.walk(folder) if path not in paths and is_ours(path)]:
            stick.medium.remove(path)


def _differing(stick: Layout, wanted: Mapping[str, Chunk], on_progress: OnProgress) -> dict[str, Chunk]:
    """Those files that the medium does not give back, by path."""
    try:
        sync_file_system(stick.path)
    except OSError as error:
        raise explain_write(error, stick.path, 0) from None
    differing, done, total = {}, 0, sum(chunk.size for chunk in wanted.values())
    for path, chunk in wanted.items():
        if not _is_kept(stick, path, chunk):
            differing[path] = chunk
        done += chunk.size
        on_progress(Progress("reading the stick back", done, total))
    return differing


def _is_kept(stick: Layout, path: str, chunk: Chunk) -> bool:
    try:
        descriptor = stick.medium.open(path)
    except (FileNotFoundError, DamagedError):
        return False
    try:
        # Without this the bytes would come from memory, and prove nothing about the medium.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        return size == chunk.size and hash_range(descriptor, 0, size) == chunk.sha256
    except OSError:  # bytes that cannot be read are not kept
        return False
    finally:
        os.close(descriptor)
