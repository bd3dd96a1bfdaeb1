"""The import of a bundle: its files are copied from the medium in one pass, and each byte is hashed while it is copied.

Owns which files go where and in which order. `bundles.chunks.copy` copies them.

Rules (threats T2, T16, T35):
- a release that the new metadata do not allow is marked before they are written (`appliance.host.trust.revocations`);
- metadata is written next, to every installed release, so that all of them are verified by the newest. Then the
  floors rise; only then is content written;
- what is used afterwards is read from the copy: the copied manifest and contents are verified again;
- a file that is right is left alone, and a damaged one is replaced by a new inode;
- a file that nothing names is removed and reported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.places import (
    OWN,
    RECORDS,
    STORED,
    check_places,
    place,
    rendered_names,
)
from appliance.host.layout.prefix import Prefix, make_folder
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.state_format import write_state_file
from appliance.host.trust.expiry_exemption import Exemption, record
from appliance.host.trust.revocations import mark_revoked
from appliance.host.trust.trust_store import write_floors, write_root
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.copy import CopyCount, copy_files
from bundles.chunks.source import ChunkSource
from bundles.chunks.work_file import CopyJob
from bundles.oci.layout import INDEX_FILE, LAYOUT_BYTES, LAYOUT_FILE, METADATA, TARGETS, Layout, blob_path
from bundles.oci.manifest import index_of
from bundles.progress import OnProgress
from signing.errors import DamagedError
from signing.roles import MAX_TARGET_BYTES
from signing.verified import Evidence, Verified
from signing.verify import consistent_path

BUNDLE = "bundle"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    Args:
        copied, kept: files that were made, and files that were right already.
        count: bytes by where they came from.
        removed: paths below the release that nothing names.
    """

    copied: int
    kept: int
    count: CopyCount
    removed: tuple[str, ...]


def accept(prefix: Prefix, found: Verified[Bundle], trust: bytes, exemption: Exemption | None = None) -> None:
    """Store what a verified bundle proves: metadata for every release, the pinned root, the floors.

    Args:
        prefix: the host; its folders exist.
        found: verified by the newest metadata of a medium and of this host.
        trust: bytes of the root that it was verified with; pinned where none is yet.
        exemption: the override that lifted its expiry, if there was one.
    """
    if exemption is not None:
        record(prefix, exemption)
    mark_revoked(prefix, found.evidence)
    for release in sorted(prefix.releases.iterdir()):
        if (release / BUNDLE / LAYOUT_FILE).is_file():
            _write_metadata(Layout(release / BUNDLE), found.evidence)
    write_root(prefix, trust)
    write_floors(prefix, found.evidence.floors)


def import_layout(
    source: Layout, release: Path, found: Verified[Bundle], trust: bytes, now: datetime
) -> Verified[Bundle]:
    """Copy the files by which an installed release is verified, and verify the copy.

    Args:
        source: untrusted.
        release: the release's folder.
        found: the bundle, verified on the medium.
        trust: bytes of the root that it was verified with.
        now: the clock, in UTC.

    Returns:
        The bundle as the copy proves it; use this value from here on.

    Raises:
        NotTrustedError: the copy is not covered by the chain of trust: the medium gave other bytes than before.
        DamagedError: a file is missing, or the copy holds another bundle than before.
    """
    make_folder(release / BUNDLE)
    copy = Layout(release / BUNDLE)
    known = _write_metadata(copy, found.evidence)
    bundle = found.value
    files = {
        f"{TARGETS}/{consistent_path(found.evidence.target, found.evidence.sha256)}": MAX_TARGET_BYTES,
        blob_path(bundle.manifest): MAX_TARGET_BYTES,
        blob_path(bundle.config.sha256): bundle.config.size,
    }
    for path, max_bytes in files.items():
        _copy_small(source, copy, path, max_bytes)
    # These follow from what is signed: the medium is not asked a second time.
    copy.medium.write(LAYOUT_FILE, LAYOUT_BYTES)
    copy.medium.write(INDEX_FILE, index_of((bundle.manifest, bundle.manifest_size)))
    for path in _files_below(copy.path):
        if path not in {*known, *files, LAYOUT_FILE, INDEX_FILE}:
            (copy.path / path).unlink()
    again = open_bundle(copy.path, trust, found.evidence.floors, now)
    if again.value.manifest != bundle.manifest:
        raise DamagedError(
            "import.second-read",
            INDEX_FILE,
            expected=f"manifest {bundle.manifest}, as a moment ago",
            found=f"manifest {again.value.manifest}",
            hint="this medium does not give the same bytes twice; use another",
        )
    return again


def import_files(
    prefix: Prefix, source: ChunkSource, release: Path, bundle: Bundle, on_progress: OnProgress
) -> ImportResult:
    """Copy every file of the bundle to its place; chunks that other releases hold are copied from there.

    Args:
        prefix, release: the host, and the release's folder.
        source: untrusted blobs; where it can wait for further media, it does.
        bundle: verified.
        on_progress: called with the bytes done, of all files together.

    Raises:
        NextStickError: chunks lie on a medium that is not here; what was copied is kept.
        DamagedError: a blob is missing or differs; no incomplete file has a final name.
        NotTrustedError: the bundle names a path that only the installer may fill.
    """
    check_places(bundle.contents)
    removed = _remove_unlisted(prefix, release, bundle)
    jobs: dict[Path, CopyJob] = {}
    for file in bundle.contents.files:
        path = place(prefix, release, file)
        make_folder(path.parent)
        # Two models with the same bytes and the same name are one file in the store.
        jobs.setdefault(path, CopyJob(file, path, 0o444 if file.kind in STORED else None))
    count = copy_files(tuple(jobs.values()), source, held_chunks(prefix), on_progress, "importing the bundle")
    write_state_file(release, bundle.contents)
    return ImportResult(count.copied, len(bundle.contents.files) - count.copied, count, removed)


def _write_metadata(copy: Layout, evidence: Evidence) -> set[str]:
    # The bytes that were verified, and not what the medium holds now. The timestamp names all others, so it is written
    # last: the copy is consistent at every moment.
    names = sorted(evidence.metadata, key=lambda name: name == "timestamp.json")
    make_folder(copy.path / METADATA)
    for name in names:
        copy.medium.write(f"{METADATA}/{name}", evidence.metadata[name])
    return {f"{METADATA}/{name}" for name in names}


def _copy_small(source: Layout, copy: Layout, path: str, max_bytes: int) -> None:
    data = source.medium.read(path, max_bytes)
    if data is None:
        raise DamagedError("import.missing", path, expected="a file", found="none", hint="copy the stick again")
    make_folder((copy.path / path).parent)
    copy.medium.write(path, data)


def _files_below(folder: Path) -> Iterator[str]:
    """The paths below a folder of all that is not a folder, relative to it; symbolic links are not followed."""
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(f"{where}/{name}")]
        for name in (*names, *links):
            yield os.path.relpath(f"{where}/{name}", folder)


def _remove_unlisted(prefix: Prefix, release: Path, bundle: Bundle) -> tuple[str, ...]:
    known = {str(place(prefix, release, file)) for file in bundle.contents.files}
    known |= {f"{path}.partial" for path in known}
    known |= {str(release / name) for name in rendered_names(prefix, bundle.contents, bundle.manifest)}
    removed = []
    for path in sorted((*known, *(str(release / name) for name in RECORDS))):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
            removed.append(os.path.relpath(path, release))
    for path in _files_below(release):
        # The installer's own folders are made again where they are wrong; a link in the place of one is removed.
        is_own = path.split("/")[0] in OWN and not (release / path).parent.samefile(release)
        is_expected = path in RECORDS or str(release / path) in known
        if not is_own and not is_expected:
            (release / path).unlink()
            removed.append(path)
    return tuple(removed)
