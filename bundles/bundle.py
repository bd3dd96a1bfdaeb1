"""A verified bundle: the digest of its manifest, and its contents.

Owns the value and how it is opened from a layout through `signing.verify`. It reads kilobytes only;
`bundles.chunks.check` reads the blobs.

Rules (threats T5, T7):
- `index.json` and the manifest's annotations are hints about which target to ask for, and decide nothing;
- the name and version in the signed contents must be those of the target;
- the manifest must list exactly the chunks that the contents need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from bundles.attestation.required_statements import statements_in
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents
from bundles.contents.contents_json import parse_contents
from bundles.contents.paths import check_name
from bundles.medium import REWRITTEN_HINT
from bundles.oci.layout import INDEX_FILE, LAYOUT_BYTES, LAYOUT_FILE, TARGETS, Layout, blob_path, target_name
from bundles.oci.manifest import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, TITLE, VERSION, parse_index, parse_manifest
from bundles.oci.short_names import has_short_layout, has_short_name, short_names
from signing.chain import ReadMetadata
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError, UsageError
from signing.floors import Floors
from signing.strictjson import load
from signing.verified import Verified
from signing.verify import Chain, verify


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest digest and size, the digest and size of its `contents.json`, and the contents."""

    manifest: Digest
    manifest_size: int
    config: Chunk
    contents: Contents

    @property
    def blobs(self) -> list[Chunk]:
        """Every blob once: the manifest, the contents, then the chunks in the order in which files need them."""
        chunks = (chunk for file in self.contents.files for chunk in file.chunks)
        return list(dict.fromkeys((Chunk(self.manifest, self.manifest_size), self.config, *chunks)))

    @property
    def label(self) -> str:
        """Its name and version, for people: `smollm2 1.0.0`."""
        return f"{self.contents.name} {self.contents.version}"


def open_bundle(
    path: Path,
    trust: bytes,
    floors: Floors,
    now: datetime,
    others: tuple[ReadMetadata, ...] = (),
    links: tuple[ReadMetadata, ...] = (),
    select: str = "",
) -> Verified[Bundle]:
    """Verify the chain of trust of one bundle of a folder, stick or installed release, down to its contents.

    Args:
        path, trust, floors, now, others, links: as for `open_bundles`.
        select: `NAME-VERSION` of the wanted one, where several lie there.

    Raises:
        UsageError: there is no bundle at this path; or several, and none is selected.
        NotTrustedError: the chain does not cover what lies there.
        DamagedError: the manifest or the contents differ from their signed digest.
    """
    return select_bundle(open_bundles(path, trust, floors, now, others, links), select, str(path))


def open_bundles(
    path: Path,
    trust: bytes,
    floors: Floors,
    now: datetime,
    others: tuple[ReadMetadata, ...] = (),
    links: tuple[ReadMetadata, ...] = (),
) -> tuple[Verified[Bundle], ...]:
    """Verify the chain of trust of every bundle that a medium names, down to the contents of each.

    Args:
        path: untrusted; the folder that holds `oci-layout`.
        trust: bytes of the pinned root file.
        floors: what this host accepts at least.
        now: the clock, in UTC; see `signing.verify`.
        others: further sources of metadata, as untrusted: what the host has stored, other sticks.
        links: where else older roots of the chain may lie, as untrusted.

    Returns:
        The contents with the evidence, in the order of the target names. No blob but manifests and contents was read.

    Raises:
        UsageError: there is no bundle at this path.
        NotTrustedError: the chain does not cover one of them.
        DamagedError: a manifest or its contents differ from their signed digest.
    """
    layout = Layout(path)
    found = [
        _open_named(layout, named, replace(layout.chain(trust), others=others, links=links), floors, now)
        for named in read_index(layout)
    ]
    return tuple(sorted(found, key=lambda one: one.evidence.target))


def select_bundle(bundles: Sequence[Verified[Bundle]], select: str, subject: str) -> Verified[Bundle]:
    """Choose the one bundle that is meant.

    Args:
        bundles: verified, at least one.
        select: `NAME-VERSION`; empty where a person has named none.
        subject: where they lie, for the error.

    Raises:
        UsageError: code `bundle.several` or `bundle.not-there`; it names what lies there.
    """
    there = ", ".join(dict.fromkeys(dashed(one.value) for one in bundles))
    chosen = {one.value.manifest: one for one in bundles if select in ("", dashed(one.value))}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    if chosen:
        raise UsageError(
            "bundle.several",
            subject,
            expected="one bundle",
            found=there,
            hint="name the one that you want: --select NAME-VERSION",
        )
    raise UsageError(
        "bundle.not-there", subject, expected=select, found=there, hint="choose one of these with --select"
    )


def dashed(bundle: Bundle) -> str:
    """A bundle's name and version, as a person types it: `smollm2-1.0.0`."""
    return f"{bundle.contents.name}-{bundle.contents.version}"


def read_index(layout: Layout) -> tuple[Chunk, ...]:
    """Read which manifests a medium names; hints that decide nothing.

    Args:
        layout: untrusted.

    Raises:
        UsageError: there is no bundle at this path.
        NotTrustedError: `oci-layout` or `index.json` is not what the format gives.
        DamagedError: `index.json` is missing, or the names on a disc were shortened (code `medium.short-names`).
    """
    if not layout.path.is_dir() or (first := layout.medium.read(LAYOUT_FILE, 1024)) is None:
        raise not_found(layout.path)
    if first != LAYOUT_BYTES:
        raise NotTrustedError("layout.refused", LAYOUT_FILE, expected=LAYOUT_BYTES.decode(), found="something else")
    index = layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES)
    if index is None:
        raise DamagedError(
            "layout.no-index", INDEX_FILE, expected="a file", found="none", hint="write this stick or bundle again"
        )
    return parse_index(index)


def _open_named(layout: Layout, named: Chunk, chain: Chain, floors: Floors, now: datetime) -> Verified[Bundle]:
    target = _guess_target(layout, named)
    try:
        found = verify(
            chain,
            target,
            lambda data: _parse(layout, data),
            floors,
            now,
            lambda bundle: statements_in(bundle.contents),
        )
    except DamagedError as error:
        if error.code == "target.missing" and has_short_name(layout, f"{TARGETS}/{error.subject}"):
            raise short_names(error.subject) from None
        raise
    bundle = found.value
    if target != target_name(bundle.contents.name, bundle.contents.version):
        raise NotTrustedError(
            "bundle.wrong-name",
            target,
            expected=target_name(bundle.contents.name, bundle.contents.version),
            found=target,
        )
    if named.sha256 != bundle.manifest or _read(layout, Chunk(bundle.manifest, bundle.manifest_size)) is None:
        raise NotTrustedError(
            "bundle.mixed",
            INDEX_FILE,
            expected=f"the signed manifest {bundle.manifest}",
            found=f"manifest {named.sha256}",
            hint="the files of two bundles are mixed here; write the stick again",
        )
    return found


def not_found(path: Path) -> ApplianceError:
    """The error for a path where no bundle lies, or one on a disc that has shortened names."""
    if path.is_dir() and has_short_layout(Layout(path)):
        return short_names(LAYOUT_FILE)
    return UsageError(
        "bundle.not-found",
        str(path),
        expected="a folder with the file oci-layout: a bundle or a stick",
        found="a folder without it" if path.is_dir() else "no such folder",
        hint="check the path, and that the stick is mounted; an installed release: appliance verify --prefix DIR",
    )


def _guess_target(layout: Layout, named: Chunk) -> str:
    manifest = load(_need(layout, named), "manifest", MAX_MANIFEST_BYTES)
    annotations = manifest.get("annotations") if isinstance(manifest, dict) else None
    hints = annotations if isinstance(annotations, dict) else {}
    return target_name(check_name(hints.get(TITLE)), check_name(hints.get(VERSION)))


def _parse(layout: Layout, data: bytes) -> Bundle:
    manifest = parse_manifest(data)
    config = Chunk(manifest.contents, manifest.contents_size)
    contents = parse_contents(_need(layout, config))
    needed = {chunk.sha256: chunk.size for file in contents.files for chunk in file.chunks}
    if list(needed.items()) != list(manifest.blobs.items()):
        raise NotTrustedError(
            "manifest.blobs",
            "manifest",
            expected=f"the {len(needed)} blobs that the contents need, in their order",
            found=f"{len(manifest.blobs)} blobs" + (" in another order" if needed == manifest.blobs else ""),
        )
    return Bundle(sha256(data), len(data), config, contents)


def _need(layout: Layout, blob: Chunk) -> bytes:
    data = _read(layout, blob)
    if data is None:
        path = blob_path(blob.sha256)
        raise DamagedError("blob.missing", path, expected="a file", found="none", hint="copy it again")
    return data


def _read(layout: Layout, blob: Chunk) -> bytes | None:
    path = blob_path(blob.sha256)
    data = layout.medium.read(path, blob.size)
    if data is not None and len(data) > blob.size:
        raise NotTrustedError("blob.too-long", path, expected=f"{blob.size} bytes", found="more")
    if data is not None and sha256(data) != blob.sha256:
        raise DamagedError(
            "blob.differs",
            path,
            expected=f"sha256 {blob.sha256}",
            found=f"sha256 {sha256(data)}",
            hint="copy it again" if len(data) == blob.size else REWRITTEN_HINT,
        )
    return data
