"""Export of a bundle to a registry.

Owns the order: blobs, the bundle's manifest, the second artifact, and the tag last, so that nobody pulls an incomplete
bundle. Blobs that the registry has are not sent again, so that an interrupted export continues where it stopped.

Rules:
- only verified bytes are sent: the chain is verified first, and each blob is hashed while it is read;
- the bundle's own manifest is sent byte for byte: its digest is its identity there, too.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from appliance.builder.registry.client import Registry, fallback_tag
from appliance.builder.registry.signatures_artifact import EMPTY, gather_evidence, write_referrers
from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import Layout, blob_path
from bundles.oci.manifest import INDEX_TYPE
from bundles.progress import OnProgress, Progress
from signing.digest import Digest, sha256
from signing.errors import DamagedError

THREADS = 2


@dataclass(frozen=True, slots=True)
class ExportedBundle:
    """The result of an export: blobs sent, their bytes, all blobs of the bundle, and the second artifact's digest."""

    sent: int
    sent_bytes: int
    blobs: int
    evidence: Digest


def export_bundle(layout: Layout, bundle: Bundle, registry: Registry, on_progress: OnProgress) -> ExportedBundle:
    """Send a bundle.

    Args:
        layout: holds every blob.
        bundle: verified.
        registry: connected, to a reference with a tag.
        on_progress: called with bytes done.

    Raises:
        DamagedError: a blob is not here, or not the signed one.
        ApplianceError: the registry refuses, or cannot be reached.
    """
    manifest, *blobs = bundle.blobs
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [(chunk, pool.submit(_send, layout, chunk, registry)) for chunk in blobs]
        total, done, sent = sum(chunk.size for chunk in blobs), 0, []
        try:
            for chunk, job in jobs:
                if job.result():
                    sent.append(chunk.size)
                done += chunk.size
                on_progress(Progress("sending blobs", done, total))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    data = _read(layout, manifest)
    registry.put_manifest(f"sha256:{manifest.sha256}", data)
    evidence = gather_evidence(layout, data)
    for small in (EMPTY, *evidence.files.values()):
        registry.put_blob(small, sha256(small))
    digest = sha256(evidence.manifest)
    if not registry.put_manifest(f"sha256:{digest}", evidence.manifest):
        known = registry.referrers(manifest.sha256)
        registry.put_manifest(fallback_tag(manifest.sha256), write_referrers(known, evidence.manifest), INDEX_TYPE)
    # The tag comes last: until then it names the bundle before.
    registry.put_manifest(registry.reference.tag, data)
    return ExportedBundle(len(sent), sum(sent), len(blobs), digest)


def _send(layout: Layout, chunk: Chunk, registry: Registry) -> bool:
    return (
        False if registry.has_blob(chunk.sha256, chunk.size) else registry.put_blob(_read(layout, chunk), chunk.sha256)
    )


def _read(layout: Layout, chunk: Chunk) -> bytes:
    descriptor = layout.open_chunk(chunk)
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(chunk.size + 1)
    if sha256(data) != chunk.sha256:
        raise DamagedError(
            "blob.differs",
            blob_path(chunk.sha256),
            expected=f"sha256 {chunk.sha256}",
            found=f"sha256 {sha256(data)}",
            hint="build the bundle again, or copy it again",
        )
    return data
