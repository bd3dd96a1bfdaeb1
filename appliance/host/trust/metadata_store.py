"""The TUF metadata that a host has stored, and opening a medium with them (docs/architecture.md, Trust).

Each installed release holds a copy of the publisher's repository; together they are the store. This module never writes
there: `appliance.host.install.importer` does.

Rules (threats T1, T2, T4):
- the newest valid metadata of medium and store decide whether a bundle may still be installed, and who is revoked;
- a medium whose metadata are older than this host's floors is a notice, as long as the store reaches the floors;
- a medium whose metadata have any other fault is refused, whatever the store holds;
- a copy in the store that cannot be used is a notice;
- a copy with the same bytes as the medium's is not verified a second time.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.trust_store import read_floors, read_root
from bundles.bundle import Bundle, open_bundle
from bundles.oci.layout import LAYOUT_FILE, Layout
from signing.chain import ReadMetadata
from signing.errors import DamagedError, NotTrustedError
from signing.floors import Floors
from signing.roles import MAX_BYTES
from signing.verified import Evidence, Verified

OLDER = "version.rollback"


def open_newest(path: Path, trust: bytes, floors: Floors, now: datetime, prefix: Prefix) -> Verified[Bundle]:
    """Verify the chain of trust of a bundle or stick by the newest metadata of the medium and of this host.

    Args:
        path: untrusted.
        trust: bytes of the root to verify against.
        floors: what this host accepts at least.
        now: the clock, in UTC; see `signing.verify`.
        prefix: the host.

    Raises:
        NotTrustedError, DamagedError, UsageError: as `open_bundle`.
    """
    try:
        alone = open_bundle(path, trust, floors, now)
    except NotTrustedError as error:
        if error.code != OLDER:
            raise
        alone = None
    stored = _stored(prefix)
    if alone is not None and all(_is_same(read, alone.evidence) for read in stored):
        return alone
    return open_bundle(path, trust, floors, now, stored)


def trust_state(prefix: Prefix) -> tuple[object, ...]:
    """Read everything of this host that a verdict about a medium depends on; equal values give equal verdicts."""
    stored = (read("timestamp.json", MAX_BYTES["timestamp"]) for read in _stored(prefix))
    return read_root(prefix), read_floors(prefix), *stored


def notices(found: Verified[Bundle]) -> tuple[str, ...]:
    """List metadata that were not used, one line for people each."""
    return tuple(
        f"judged by the newest metadata that this host has stored; older ones lie on this medium ({fault})"
        if fault.code == OLDER
        else f"metadata that this host has stored cannot be used ({fault}); the next install writes them again"
        for fault in found.evidence.passed_over
    )


def _stored(prefix: Prefix) -> tuple[ReadMetadata, ...]:
    found: dict[bytes, ReadMetadata] = {}
    for release in sorted(prefix.releases.glob("*/")):
        if (release / "bundle" / LAYOUT_FILE).is_file():
            read = _reader(release / "bundle")
            found.setdefault(read("timestamp.json", MAX_BYTES["timestamp"]) or b"", read)
    return tuple(found.values())


def _is_same(read: ReadMetadata, evidence: Evidence) -> bool:
    """Whether a copy in the store holds nothing beyond the metadata that were verified already."""
    successor = f"{evidence.floors.root + 1}.root.json"
    return read(successor, MAX_BYTES["root"]) is None and all(
        read(name, len(data)) == data for name, data in evidence.metadata.items()
    )


def _reader(folder: Path) -> ReadMetadata:
    read = Layout(folder).chain(b"").read_metadata

    def read_or_none(name: str, most: int) -> bytes | None:
        try:
            return read(name, most)
        except (DamagedError, NotTrustedError):
            return None

    return read_or_none
