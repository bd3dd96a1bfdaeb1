"""Import of a bundle from a registry.

Owns the order: the manifest, the proof of who signed it, and the chain of trust. Only then the blobs are fetched, and
each is compared with its signed digest before it is written.

Rules (threats T1, T5, T6, T23):
- a registry has no authority: a tag is a hint, a list of referrers is a hint;
- of several sets of metadata, the one with the highest versions counts; a set that does not verify is refused only
  where no other verifies;
- the bundle appears under its name when all of it is verified;
- after a broken connection, the fetched blobs stay in a folder beside it and the next run continues; after a hostile
  answer, nothing stays.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.builder.registry.client import Registry
from appliance.builder.registry.signatures_artifact import FOLDERS, evidence_digests, parse_evidence
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.check import check_all
from bundles.chunks.chunk import Chunk
from bundles.medium import Medium, sync_folder
from bundles.oci.layout import INDEX_FILE, LAYOUT_BYTES, LAYOUT_FILE, Layout, blob_path
from bundles.oci.manifest import parse_manifest, write_index
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError, UsageError
from signing.floors import Floors
from signing.verified import Verified

THREADS = 2
MAX_SETS = 8


@dataclass(frozen=True, slots=True)
class ImportedBundle:
    """A bundle that was imported and verified, and how many of its blobs were fetched."""

    path: Path
    bundle: Verified[Bundle]
    fetched: int
    fetched_bytes: int


def import_bundle(
    registry: Registry, destination: Path, root: bytes, now: datetime, on_progress: OnProgress
) -> ImportedBundle:
    """Fetch and verify a bundle.

    Args:
        registry: connected, to a reference with a tag.
        destination: the bundle's folder; must not exist yet.
        root: bytes of the pinned root file.
        now: the clock, in UTC.
        on_progress: called with bytes done.

    Raises:
        UsageError: the destination is there already, or the registry has no such tag.
        NotTrustedError: the chain does not cover it, or the registry is hostile; nothing is kept.
        DamagedError: bytes differ; nothing is kept.
        ApplianceError: the registry cannot be reached; another run continues.
    """
    if destination.exists():
        raise UsageError(
            "import.exists",
            str(destination),
            expected="a new folder",
            found="a file or folder of this name",
            hint="name a folder that does not exist yet",
        )
    partial = destination.with_name(f".{destination.name}.importing")
    try:
        found, fetched = _fetch(registry, partial, root, now, on_progress)
    except (NotTrustedError, DamagedError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(destination)
    sync_folder(destination.parent)
    return ImportedBundle(destination, found, len(fetched), sum(chunk.size for chunk in fetched))


def _fetch(
    registry: Registry, partial: Path, root: bytes, now: datetime, on_progress: OnProgress
) -> tuple[Verified[Bundle], list[Chunk]]:
    reference = registry.reference
    manifest = registry.get_manifest(reference.tag)
    if manifest is None:
        raise UsageError("registry.no-tag", str(reference), expected="a bundle", found="no such tag")
    named = parse_manifest(manifest)
    medium = Medium(partial)
    medium.write(blob_path(sha256(manifest)), manifest)
    medium.write(blob_path(named.contents), registry.get_blob(named.contents, named.contents_size))
    medium.write(LAYOUT_FILE, LAYOUT_BYTES)
    medium.write(INDEX_FILE, write_index(manifest))
    found = _choose_evidence(registry, sha256(manifest), medium, root, now)
    fetched = _fetch_blobs(registry, found.value, medium, on_progress)
    check_all(Layout(partial), found, on_progress)
    return found, fetched


def _choose_evidence(
    registry: Registry, bundle: Digest, medium: Medium, root: bytes, now: datetime
) -> Verified[Bundle]:
    subject = str(registry.reference)
    digests = evidence_digests(registry.referrers(bundle), subject)[-MAX_SETS:]
    best: tuple[tuple[int, ...], dict[str, bytes]] | None = None
    refused: ApplianceError = NotTrustedError(
        "registry.no-evidence",
        subject,
        expected="a second artifact that proves who signed the bundle",
        found="none that refers to it",
        hint="appliance bundle export sends it; other tools may have copied the bundle alone",
    )
    for digest in digests:
        try:
            files = _fetch_evidence(registry, digest, bundle)
            _write_files(medium, files)
            floors = open_bundle(medium.root, root, Floors(), now).evidence.floors
        except (NotTrustedError, DamagedError) as error:
            refused = error
            continue
        rank = (floors.root, floors.targets, floors.snapshot, floors.timestamp)
        if best is None or rank >= best[0]:
            best = (rank, files)
    if best is None:
        raise refused
    _write_files(medium, best[1])
    return open_bundle(medium.root, root, Floors(), now)


def _fetch_evidence(registry: Registry, digest: Digest, bundle: Digest) -> dict[str, bytes]:
    data = registry.get_manifest(f"sha256:{digest}")
    if data is None:
        raise DamagedError("registry.blob-differs", f"sha256:{digest}", expected="a manifest", found="none")
    named = parse_evidence(data, bundle, f"{registry.reference} sha256:{digest[:12]}")
    return {path: registry.get_blob(chunk.sha256, chunk.size) for path, chunk in named.items()}


def _write_files(medium: Medium, files: dict[str, bytes]) -> None:
    for folder in FOLDERS:
        shutil.rmtree(medium.root / folder, ignore_errors=True)
    for path, data in files.items():
        medium.write(path, data)


def _fetch_blobs(registry: Registry, bundle: Bundle, medium: Medium, on_progress: OnProgress) -> list[Chunk]:
    wanted = [chunk for chunk in bundle.blobs if not _is_there(medium, chunk)]
    total = sum(chunk.size for chunk in bundle.blobs)
    done = total - sum(chunk.size for chunk in wanted)
    # At most two blobs are in memory: the next two are fetched when these were written.
    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, len(wanted), THREADS):
            batch = wanted[at : at + THREADS]
            found = pool.map(lambda one: registry.get_blob(one.sha256, one.size), batch)
            for chunk, data in zip(batch, found, strict=True):
                medium.write(blob_path(chunk.sha256), data)
                done += chunk.size
                on_progress(Progress("fetching blobs", done, total))
    return wanted


def _is_there(medium: Medium, chunk: Chunk) -> bool:
    try:
        return (medium.root / blob_path(chunk.sha256)).stat().st_size == chunk.size
    except OSError:
        return False
