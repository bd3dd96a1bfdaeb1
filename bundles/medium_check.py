"""The check of a medium but for the bytes of its chunks: names, index, metadata, attestations and `BOOT/`.

Owns the one judgement of what may lie on a medium. `verify`, `install`, `stick write`, `bundle export` and `verify.pyz`
all use it, so what one of them refuses none of them takes.

Rules (threats T5, T18, T21, T23):
- in a covered folder lies only what the walk read, roots of the chain, and what a bundle needs;
- metadata that a host does not use, since it knows newer ones, must still be whole;
- `index.json` is, byte for byte, what the manifests on the medium give;
- what has a name of the format is a regular file, also where its content decides nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable

from bundles.attestation.attestation_check import Attested, check_attestations
from bundles.bare_host.boot_check import MAX_FILE_BYTES, Boot, check_boot
from bundles.bundle import Bundle
from bundles.oci.covered_names import is_metadata_path, refuse_unlisted, unlisted
from bundles.oci.layout import (
    INDEX_FILE,
    LAYOUT_FILE,
    METADATA,
    README_FILE,
    STICK_FILE,
    TARGETS,
    Layout,
    blob_path,
)
from bundles.oci.manifest import MAX_INDEX_BYTES, index_of
from signing.chain import read_named
from signing.errors import ApplianceError, NotTrustedError, worst
from signing.roles import MAX_BYTES, read_pointer
from signing.verified import Evidence, Verified
from signing.verify import consistent_path

_ROOT_NAME = re.compile(r"([1-9][0-9]{0,18})\.root\.json\Z")


@dataclass(frozen=True)
class CheckedMedium:
    """What lies beside the blobs: `BOOT/`, None where there is none, and the signatures in other formats."""

    boot: Boot | None
    attested: tuple[Attested, ...]


def check_medium(layout: Layout, bundles: Sequence[Verified[Bundle]]) -> CheckedMedium:
    """Check everything on a medium but the bytes of the chunks.

    Args:
        layout: untrusted.
        bundles: every bundle that lies there, each verified on this medium, by the same metadata.

    Returns:
        What was checked and is reported.

    Raises:
        NotTrustedError: something does not belong there, or is not what it must be; beats damaged.
        DamagedError: a file of `BOOT/` is missing or differs. All faults are reported together.
    """
    errors: list[ApplianceError] = []
    boot: Boot | None = None
    attested: list[Attested] = []

    def collect(check: Callable[[], None]) -> None:
        try:
            check()
        except ApplianceError as error:
            errors.extend((error, *error.others))

    try:
        boot = check_boot(layout, bundles[0].evidence.root)
    except ApplianceError as error:
        errors.append(error)
    collect(lambda: _check_names(layout, bundles, errors))
    collect(lambda: _check_index(layout, bundles))
    collect(lambda: check_kinds(layout))
    collect(lambda: attested.extend(check_attestations(layout, bundles)))
    if errors:
        raise worst(errors)
    return CheckedMedium(boot, tuple(attested))


def check_kinds(layout: Layout) -> None:
    """Refuse links, devices and FIFOs under the names that the format gives at the root of a medium (threat T21).

    Raises:
        NotTrustedError: one of them is no regular file, or longer than any command copies.
    """
    for name in (LAYOUT_FILE, INDEX_FILE, README_FILE, STICK_FILE):
        with suppress(FileNotFoundError):
            descriptor = layout.medium.open(name)
            size = os.fstat(descriptor).st_size
            os.close(descriptor)
            if size > MAX_FILE_BYTES:
                raise NotTrustedError(
                    "file.too-long", name, expected=f"at most {MAX_FILE_BYTES} bytes", found=f"{size}"
                )


def _check_names(layout: Layout, bundles: Sequence[Verified[Bundle]], errors: list[ApplianceError]) -> None:
    expected = {blob_path(chunk.sha256) for found in bundles for chunk in found.value.blobs}
    expected |= {f"{TARGETS}/{consistent_path(found.evidence.target, found.evidence.sha256)}" for found in bundles}
    try:
        expected |= _metadata_paths(layout, bundles[0].evidence)
    except NotTrustedError as error:
        errors.append(error)
        expected |= {path for path in layout.medium.walk(METADATA) if is_metadata_path(path)}
    refuse_unlisted(unlisted(layout, expected))


def _metadata_paths(layout: Layout, evidence: Evidence) -> set[str]:
    """The paths of the medium's own metadata: what its timestamp leads to, and roots of the chain.

    The walk has verified the timestamp's signature. Where it is older than this host's floors, nothing behind it was
    read; its files must yet be those that it names.
    """
    read = layout.chain(b"").read_metadata
    data = read("timestamp.json", MAX_BYTES["timestamp"]) or b""
    meta = read_pointer(data, "timestamp", "snapshot.json", "timestamp.json")
    snapshot = f"{meta.version}.snapshot.json"
    data = read_named(read, snapshot, meta, "snapshot")
    meta = read_pointer(data, "snapshot", "targets.json", snapshot)
    targets = f"{meta.version}.targets.json"
    read_named(read, targets, meta, "targets")
    roots = [name for name in layout.medium.list(METADATA) if _is_known_root(layout, name, evidence)]
    return {f"{METADATA}/{name}" for name in ("timestamp.json", snapshot, targets, *roots)}


def _is_known_root(layout: Layout, name: str, evidence: Evidence) -> bool:
    match = _ROOT_NAME.match(name)
    if match is None or int(match[1]) > evidence.floors.root:
        return False
    known = evidence.metadata.get(name)
    data = layout.chain(b"").read_metadata(name, MAX_BYTES["root"])
    # One that is older than the pinned root was compared with its successor by the walk, which read it here.
    if known is not None and data != known:
        raise NotTrustedError(
            "root.differs",
            name,
            expected="the root of this version that this host knows",
            found="another root of the same version",
            hint="ask a key holder: two roots of one version were signed",
        )
    return True


def _check_index(layout: Layout, bundles: Sequence[Verified[Bundle]]) -> None:
    order = sorted(bundles, key=lambda found: found.evidence.target)
    expected = index_of(*((found.value.manifest, found.value.manifest_size) for found in order))
    if layout.medium.read(INDEX_FILE, MAX_INDEX_BYTES) != expected:
        raise NotTrustedError(
            "index.differs",
            INDEX_FILE,
            expected=f"exactly what the signed manifest gives, {len(expected)} bytes",
            found="something else",
            hint="write this stick or bundle again",
        )
