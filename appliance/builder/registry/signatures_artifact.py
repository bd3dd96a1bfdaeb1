"""The second artifact of a bundle in a registry: the files that prove who signed it (FORMAT 9).

Owns the form of its manifest, and which files of a layout it carries. Its `subject` is the bundle's manifest, so that a
registry lists it as a referrer. Trust comes from the files alone.

Rules:
- one layer for each small file, with its path as the title; the layers of the bundle itself stay as they are;
- paths follow the grammar of `bundles.contents.paths`, lie in the folders below, and stand once.

Source: OCI image specification 1.1, "Guidelines for artifact usage"; OCI distribution specification 1.1, referrers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bundles.chunks.chunk import Chunk
from bundles.contents.paths import check_path, check_unique
from bundles.oci.layout import ATTESTATIONS, BOOT, METADATA, TARGETS, Layout
from bundles.oci.manifest import INDEX_TYPE, MANIFEST_TYPE, MAX_MANIFEST_BYTES
from signing.digest import Digest, parse_oci_digest, sha256
from signing.errors import NotTrustedError
from signing.strictjson import Json, load, to_file

EVIDENCE_TYPE = "application/vnd.airgap-appliance.evidence.v1"
FILE_TYPE = "application/vnd.airgap-appliance.file.v1"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
TITLE = "org.opencontainers.image.title"
FOLDERS = (METADATA, TARGETS, ATTESTATIONS, BOOT)
README = "README.txt"
MAX_FILE_BYTES = 8 << 20
MAX_FILES = 4096
MAX_BYTES = 64 << 20
_ALLOWED = re.compile(rf"(?:{'|'.join(FOLDERS)})/.+\Z")


@dataclass(frozen=True, slots=True)
class EvidenceArtifact:
    """The second artifact: its manifest, and the small files by path."""

    manifest: bytes
    files: dict[str, bytes]


def gather_evidence(layout: Layout, bundle: bytes) -> EvidenceArtifact:
    """Collect the files that prove who signed a bundle.

    Args:
        layout: a bundle whose chain was verified.
        bundle: its manifest.
    """
    paths = [path for folder in FOLDERS for path in layout.medium.walk(folder)]
    found = {path: layout.medium.read(path, MAX_FILE_BYTES) for path in [*paths, README]}
    files = {path: data for path, data in found.items() if data is not None}
    layers = [{**_descriptor(FILE_TYPE, data), "annotations": {TITLE: path}} for path, data in sorted(files.items())]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": EVIDENCE_TYPE,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": layers,
        "subject": _descriptor(MANIFEST_TYPE, bundle),
    }
    return EvidenceArtifact(to_file(manifest), files)


def parse_evidence(data: bytes, bundle: Digest, subject: str) -> dict[str, Chunk]:
    """Parse the manifest of a second artifact, which carries no signature of its own.

    Args:
        data: untrusted.
        bundle: the digest of the manifest that it must refer to.
        subject: its name, for errors.

    Returns:
        The files that it lists by path, each with digest and size.

    Raises:
        NotTrustedError: another form, another bundle, a path outside the folders, or more files than a bundle has.
    """
    value = load(data, subject, MAX_MANIFEST_BYTES)
    layers = value.get("layers") if isinstance(value, dict) else None
    about = value.get("subject") if isinstance(value, dict) else None
    if not isinstance(layers, list) or value.get("artifactType") != EVIDENCE_TYPE or not isinstance(about, dict):
        raise _refusal(subject, f"an artifact of type {EVIDENCE_TYPE}", "something else")
    if parse_oci_digest(about.get("digest"), subject) != bundle:
        raise _refusal(subject, f"what refers to sha256:{bundle}", str(about.get("digest"))[:80])
    if len(layers) > MAX_FILES:
        raise _refusal(subject, f"at most {MAX_FILES} files", str(len(layers)))
    pairs = [_file(layer, subject) for layer in layers]
    check_unique((path for path, _ in pairs), subject)
    if sum(chunk.size for _, chunk in pairs) > MAX_BYTES:
        raise _refusal(subject, f"at most {MAX_BYTES} bytes", "more")
    return dict(pairs)


def write_referrers(known: list[Json], manifest: bytes) -> bytes:
    """The index for a registry that keeps no list of referrers: its entries so far, and this artifact.

    Args:
        known: descriptors of the present index; untrusted, and repeated unchanged.
        manifest: of the second artifact.
    """
    own = {**_descriptor(MANIFEST_TYPE, manifest), "artifactType": EVIDENCE_TYPE}
    others = [one for one in known if one.get("digest") != own["digest"]]
    return to_file({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, own]})


def evidence_digests(referrers: list[Json], subject: str) -> list[Digest]:
    """The digests of those referrers of a bundle that claim to be second artifacts, the newest last; untrusted."""
    ours = [one for one in referrers if one.get("artifactType") == EVIDENCE_TYPE]
    return [parse_oci_digest(one.get("digest"), subject) for one in ours]


def _file(layer: Json, subject: str) -> tuple[str, Chunk]:
    annotations = layer.get("annotations") if isinstance(layer, dict) else None
    path = check_path(annotations.get(TITLE) if isinstance(annotations, dict) else None)
    if path != README and not _ALLOWED.match(path):
        raise _refusal(subject, f"files in {', '.join(FOLDERS)}, and {README}", path)
    size = layer.get("size")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise _refusal(f"{subject} {path}", f"at most {MAX_FILE_BYTES} bytes", repr(size)[:40])
    return path, Chunk(parse_oci_digest(layer.get("digest"), subject), size)


def _descriptor(media_type: str, data: bytes) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}


def _refusal(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("registry.evidence", subject, expected=expected, found=found)
