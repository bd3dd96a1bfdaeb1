"""The TUF metadata that a host has stored, and opening a medium with them (docs/architecture.md, Trust).

Each installed release holds a copy of the publisher's repository; together they are the store. This module never writes
there: `appliance.host.install.importer` does.

Rules (threats T1, T2, T4):
- the newest valid metadata of medium and store decide whether a bundle may still be installed, and who is revoked;
- a medium whose metadata are older than this host's floors is a notice, as long as the store reaches the floors;
- a medium whose metadata have any other fault is refused, whatever the store holds;
- a copy in the store that cannot be used is a notice;
- the store shows that the roots of an old medium are of this chain: the roots that came after it lie there;
- a copy with the same bytes as the medium's is not verified a second time;
- a root that a person names can only narrow what this host accepts. Where it is of the same chain as the pinned one,
  floors and stored metadata count as always. A root of another chain is judged alone, and the answer states that (T94).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_chain import is_same_chain
from appliance.host.trust.trust_store import read_floors, read_root
from bundles.bundle import Bundle, open_bundle
from bundles.oci.layout import LAYOUT_FILE, Layout
from signing.chain import ReadMetadata
from signing.chain import read_root as parse_root
from signing.errors import DamagedError, NotTrustedError
from signing.floors import Floors
from signing.roles import MAX_BYTES
from signing.verified import Evidence, Verified

OLDER = "version.rollback"
ALONE = (
    "judged by the named root alone: it is not of the chain of the root that this host has pinned, so the floors and "
    "revocations of this host do not count"
)


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
    stored = _stored(prefix)
    try:
        alone = open_bundle(path, trust, floors, now, links=stored)
    except NotTrustedError as error:
        if error.code != OLDER:
            raise
        alone = None
    if alone is not None and all(_is_same(read, alone.evidence) for read in stored):
        return alone
    return open_bundle(path, trust, floors, now, stored)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verified bundle, and by what it was judged.

    Args:
        bundle: verified.
        is_alone: whether a named root of another chain than this host's judged it; nothing of this host counted then.
    """

    bundle: Verified[Bundle]
    is_alone: bool = False

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about it, one line each."""
        return (*notices(self.bundle), *((ALONE,) if self.is_alone else ()))


def judge(path: Path, trust: bytes, now: datetime, prefix: Prefix) -> Judgement:
    """Verify the chain of trust of a bundle or stick on a host, by a root that a person may have named.

    Args:
        path: untrusted.
        trust: bytes of the root to verify against: the pinned one, or another that a person named.
        now: the clock, in UTC; see `signing.verify`.
        prefix: the host.

    Raises:
        NotTrustedError, DamagedError, UsageError: as `open_bundle`.
    """
    pinned = read_root(prefix)
    if pinned is None or pinned == trust:
        return Judgement(open_newest(path, trust, read_floors(prefix), now, prefix))
    medium = (_reader(path),) if path.is_dir() else ()
    if not is_same_chain(trust, pinned, (*_stored(prefix), *medium)):
        return Judgement(open_bundle(path, trust, Floors(), now), is_alone=True)
    floors = read_floors(prefix)
    found = open_newest(path, pinned, floors, now, prefix)
    if parse_root(trust, "named root").version > parse_root(pinned, "pinned root").version:
        # From an older root the walk comes to the pinned one. A newer one asks for more than this host does.
        found = open_newest(path, trust, floors, now, prefix)
    return Judgement(found)


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
