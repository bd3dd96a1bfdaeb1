"""The OCI artifact manifest and the index that points to it (FORMAT 2).

Owns the form of both. The manifest's config is `contents.json`; its layers are the chunks, each once, in the order in
which the files need them. Nothing in it is dated or signed, so that the same content gives the same digest everywhere.

Source: OCI image specification 1.1, manifest.md ("guidelines for artifact usage") and image-index.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundles.chunks.chunk import Chunk
from bundles.contents.contents import MAX_CONTENTS_BYTES, Contents
from signing.digest import Digest, parse_oci_digest, sha256
from signing.errors import NotTrustedError
from signing.strictjson import Json, load_canonical, to_file

ARTIFACT_TYPE = "application/vnd.airgap-appliance.bundle.v1"
CONTENTS_TYPE = "application/vnd.airgap-appliance.contents.v1+json"
CHUNK_TYPE = "application/vnd.airgap-appliance.chunk.v1"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE, VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
_FIELDS = {"schemaVersion", "mediaType", "artifactType", "config", "layers", "annotations"}
MAX_MANIFEST_BYTES = 4 << 20
MAX_INDEX_BYTES = 64 << 10
MAX_BUNDLES = 64
"""How many bundles one medium may hold."""
INDEX = "index.json"


@dataclass(frozen=True)
class Manifest:
    """The parts of a manifest that matter here: digest and size of `contents.json`, and every blob with its size."""

    contents: Digest
    contents_size: int
    blobs: dict[Digest, int]


def write_manifest(contents: Contents, contents_bytes: bytes) -> bytes:
    """The manifest of a bundle.

    Args:
        contents: the parsed value of `contents_bytes`.
        contents_bytes: the config blob.
    """
    blobs = {chunk.sha256: chunk.size for file in contents.files for chunk in file.chunks}
    return to_file(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(CONTENTS_TYPE, sha256(contents_bytes), len(contents_bytes)),
            "layers": [_descriptor(CHUNK_TYPE, digest, size) for digest, size in blobs.items()],
            "annotations": {
                TITLE: contents.name,
                VERSION: contents.version,
            },
        }
    )


def write_index(manifest_bytes: bytes) -> bytes:
    """The `index.json` of a layout that holds one bundle."""
    return index_of((sha256(manifest_bytes), len(manifest_bytes)))


def index_of(*manifests: tuple[Digest, int]) -> bytes:
    """The `index.json` of a layout.

    Args:
        manifests: digest and size in bytes of each, in the order of their target names.
    """
    entries = [{**_descriptor(MANIFEST_TYPE, *manifest), "artifactType": ARTIFACT_TYPE} for manifest in manifests]
    return to_file({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries})


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest whose digest the chain of trust has named.

    Raises:
        NotTrustedError: not canonical, not the manifest of a bundle, or it has a field that FORMAT 2 does not give.
    """
    value = load_canonical(data, "manifest", MAX_MANIFEST_BYTES)
    if (
        not isinstance(value, dict)
        or value.get("artifactType") != ARTIFACT_TYPE
        or not isinstance(value.get("layers"), list)
    ):
        raise _refuse("manifest", f"an OCI manifest of artifact type {ARTIFACT_TYPE}")
    if set(value) != _FIELDS or type(value["schemaVersion"]) is not int or value["schemaVersion"] != 2:
        raise _refuse("manifest", f"schemaVersion 2, and the fields {', '.join(sorted(_FIELDS))}")
    if value["mediaType"] != MANIFEST_TYPE:
        raise _refuse("manifest", f"media type {MANIFEST_TYPE}")
    annotations = value["annotations"]
    if not isinstance(annotations, dict) or set(annotations) != {TITLE, VERSION}:
        raise _refuse("manifest", f"the annotations {TITLE} and {VERSION}")
    contents, size = _read_descriptor(value["config"], CONTENTS_TYPE)
    if size > MAX_CONTENTS_BYTES:
        raise _refuse("manifest config", f"at most {MAX_CONTENTS_BYTES} bytes")
    layers = [_read_descriptor(layer, CHUNK_TYPE) for layer in value["layers"]]
    blobs = dict(layers)
    if len(layers) != len(blobs):
        raise _refuse("manifest", "each layer once")
    return Manifest(contents, size, blobs)


def parse_index(data: bytes) -> tuple[Chunk, ...]:
    """Read an untrusted `index.json` as a hint: which manifests lie here.

    Returns:
        Digest and size of each manifest, which the chain of trust has yet to name; at least one.

    Raises:
        NotTrustedError: not the index of bundles, or it names one twice.
    """
    value = load_canonical(data, INDEX, MAX_INDEX_BYTES)
    manifests = value.get("manifests") if isinstance(value, dict) else None
    if not isinstance(manifests, list) or not 1 <= len(manifests) <= MAX_BUNDLES:
        raise _refuse(INDEX, f"an index with 1 to {MAX_BUNDLES} manifests")
    found = tuple(_read_entry(entry) for entry in manifests)
    if len({one.sha256 for one in found}) != len(found):
        raise _refuse(INDEX, "each manifest once")
    return found


def parse_index_of_one(data: bytes) -> Chunk:
    """Read the `index.json` of a folder that holds one bundle, such as one that the builder has made.

    Raises:
        NotTrustedError: not the index of one bundle.
    """
    found = parse_index(data)
    if len(found) != 1:
        raise _refuse(INDEX, "an index with one manifest")
    return found[0]


def _read_entry(entry: Json) -> Chunk:
    if not isinstance(entry, dict) or entry.get("artifactType") != ARTIFACT_TYPE:
        raise _refuse(INDEX, f"a manifest of artifact type {ARTIFACT_TYPE}")
    size = entry.get("size")
    if type(size) is not int or not 0 < size <= MAX_MANIFEST_BYTES:
        raise _refuse(INDEX, f"a manifest of at most {MAX_MANIFEST_BYTES} bytes")
    return Chunk(parse_oci_digest(entry.get("digest"), INDEX), size)


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _read_descriptor(value: Json, media_type: str) -> tuple[Digest, int]:
    if not isinstance(value, dict) or set(value) != {"mediaType", "digest", "size"} or value["mediaType"] != media_type:
        raise _refuse("manifest", f"a descriptor of {media_type}")
    if type(value["size"]) is not int or value["size"] < 0:
        raise _refuse("manifest", "a size in bytes")
    return parse_oci_digest(value["digest"], "manifest"), value["size"]


def _refuse(subject: str, expected: str) -> NotTrustedError:
    return NotTrustedError("manifest.refused", subject, expected=expected, found="something else")
