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

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_chain import is_same_chain
from appliance.host.trust.trust_store import read_floors, read_root
from bundles.bundle import Bundle
from bundles.oci.layout import LAYOUT_FILE
from bundles.stick.media import OLDER, OpenBundles, OpenMedia, by_newest, metadata_reader, open_media
from bundles.stick.media_set import Waiting
from signing.chain import ReadMetadata
from signing.chain import read_root as parse_root
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.roles import MAX_BYTES
from signing.verified import Verified

ALONE = (
    "judged by the named root alone: it is not of the chain of the root that this host has pinned, so the floors and "
    "revocations of this host do not count"
)


def open_newest(path: Path, trust: bytes, floors: Floors, now: datetime, prefix: Prefix) -> Verified[Bundle]:
    """Verify the chain of trust of the one bundle of a folder by the newest metadata of it and of this host.

    Args:
        path: untrusted.
        trust: bytes of the root to verify against.
        floors: what this host accepts at least.
        now: the clock, in UTC; see `signing.verify`.
        prefix: the host.

    Raises:
        NotTrustedError, DamagedError, UsageError: as `open_media`; or several bundles lie there.
    """
    return open_media((path,), by_newest(trust, floors, now, _stored(prefix))).select()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verified bundle, and by what it was judged.

    Args:
        bundle: verified.
        is_alone: whether a named root of another chain than this host's judged it; nothing of this host counted then.
        of_media: what a person should know about the media that it lies on, one line each.
    """

    bundle: Verified[Bundle]
    is_alone: bool = False
    of_media: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about it, one line each."""
        return (*notices(self.bundle), *self.of_media, *((ALONE,) if self.is_alone else ()))


@dataclass(frozen=True, slots=True)
class JudgedMedia:
    """Verified media, and by what they were judged; see `Judgement`."""

    media: OpenMedia
    is_alone: bool = False

    def select(self, wanted: str = "") -> Judgement:
        """Choose the one bundle that is meant; see `bundles.bundle.select_bundle`."""
        return self.of(self.media.select(wanted))

    def of(self, found: Verified[Bundle]) -> Judgement:
        """The judgement of one of the bundles."""
        return Judgement(found, self.is_alone, self.media.notices)


def judge(path: Path, trust: bytes, now: datetime, prefix: Prefix) -> Judgement:
    """Verify the chain of trust of the one bundle of a folder on a host; see `judge_media`."""
    return judge_media((path,), trust, now, prefix).select()


def judge_media(
    paths: Sequence[Path], trust: bytes, now: datetime, prefix: Prefix, waiting: Waiting | None = None
) -> JudgedMedia:
    """Verify the chain of trust of bundles and sticks on a host, by a root that a person may have named.

    Args:
        paths: untrusted; at least one.
        trust: bytes of the root to verify against: the pinned one, or another that a person named.
        now: the clock, in UTC; see `signing.verify`.
        prefix: the host.
        waiting: how to wait for further media; None where nobody waits.

    Raises:
        NotTrustedError, DamagedError, UsageError: as `open_media`.
    """
    pinned, floors, stored = read_root(prefix), read_floors(prefix), _stored(prefix)
    if pinned is None or pinned == trust:
        return JudgedMedia(open_media(paths, by_newest(trust, floors, now, stored), waiting))
    media = tuple(metadata_reader(path) for path in paths if path.is_dir())
    if not is_same_chain(trust, pinned, (*stored, *media)):
        return JudgedMedia(open_media(paths, by_newest(trust, Floors(), now), waiting), is_alone=True)
    roots = [pinned]
    if parse_root(trust, "named root").version > parse_root(pinned, "pinned root").version:
        # From an older root the walk comes to the pinned one. A newer one asks for more than this host does.
        roots.append(trust)
    return JudgedMedia(open_media(paths, by_roots(roots, floors, now, prefix), waiting))


def by_roots(roots: Sequence[bytes], floors: Floors, now: datetime, prefix: Prefix) -> OpenBundles:
    """Open media by several roots, each of which must cover every bundle; the evidence is that of the last.

    Args:
        roots: bytes of root files, at least one.
        floors, now, prefix: as for `open_newest`.
    """
    stored = _stored(prefix)
    openers = [by_newest(root, floors, now, stored) for root in roots]

    def open_one(path: Path, others: tuple[ReadMetadata, ...]) -> tuple[Verified[Bundle], ...]:
        found = [opener(path, others) for opener in openers]
        manifests = [[one.value.manifest for one in bundles] for bundles in found]
        for other in manifests:
            if other != manifests[-1]:
                raise NotTrustedError(
                    "install.two-bundles",
                    str(path),
                    expected=", ".join(other),
                    found=", ".join(manifests[-1]),
                )
        return found[-1]

    return open_one


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
            read = metadata_reader(release / "bundle")
            found.setdefault(read("timestamp.json", MAX_BYTES["timestamp"]) or b"", read)
    return tuple(found.values())
