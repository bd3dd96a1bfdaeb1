"""Opening the media that together hold bundles (docs/architecture.md, Sticks).

Owns the judgement over several media. `bundles.stick.media_set` reads their chunks.

Rules (threats T5, T108, T109):
- each medium must verify by its own metadata, and the newest of all media and of the host decide about each bundle;
- metadata that are older than those of another medium are a notice;
- two media that state the same number, and a medium that is named twice, are notices: a digest decides, not a label;
- of several bundles a person selects one; `verify` judges all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Callable, TypeVar

from bundles.bundle import Bundle, open_bundles, read_index, select_bundle
from bundles.medium_check import CheckedMedium, check_medium
from bundles.oci.layout import Layout, blob_path
from bundles.stick.card import read_card
from bundles.stick.media_set import MediaSet, Waiting
from bundles.stick.missing import unplugged
from bundles.stick.mounts import mount_of
from signing.chain import ReadMetadata
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError, NotTrustedError, UsageError, worst
from signing.floors import Floors
from signing.roles import MAX_BYTES
from signing.verified import Evidence, Verified

T = TypeVar("T")
OLDER = "version.rollback"
OpenBundles = Callable[[Path, "tuple[ReadMetadata, ...]"], "tuple[Verified[Bundle], ...]"]
"""Verifies every bundle of one medium; gets its path, and the metadata of the other media, as untrusted."""
_TIMESTAMP = "timestamp.json"
_NOT_THERE_YET = frozenset(("bundle.not-found", "metadata.missing"))
"""Beside damage: what is not there yet in a folder that is filling."""


@dataclass(frozen=True)
class OpenMedium:
    """One medium whose chain of trust holds, and every bundle that it names."""

    layout: Layout
    bundles: tuple[Verified[Bundle], ...]


@dataclass(frozen=True)
class OpenMedia:
    """Media whose chain of trust holds.

    Args:
        media: each with its bundles, all by the same metadata.
        source: gives the chunks of all of them.
        notices: what a person should know about how they were judged.
    """

    media: tuple[OpenMedium, ...]
    source: MediaSet
    notices: tuple[str, ...] = ()

    @property
    def bundles(self) -> tuple[Verified[Bundle], ...]:
        """Every bundle once, in the order of the target names."""
        once = {found.value.manifest: found for one in reversed(self.media) for found in reversed(one.bundles)}
        return tuple(sorted(once.values(), key=lambda found: found.evidence.target))

    def select(self, wanted: str = "") -> Verified[Bundle]:
        """Choose the one bundle that is meant; see `bundles.bundle.select_bundle`."""
        return select_bundle(self.bundles, wanted, ", ".join(str(one.layout.path) for one in self.media))

    def layout_of(self, found: Verified[Bundle]) -> Layout:
        """The first medium that names a bundle: its manifest, contents and target lie there."""
        manifest = found.value.manifest
        return next(one.layout for one in self.media if any(two.value.manifest == manifest for two in one.bundles))

    def check(self) -> tuple[CheckedMedium, ...]:
        """Check everything on each medium but the bytes of the chunks; see `bundles.medium_check.check_medium`.

        Returns:
            What lies beside the blobs of each.

        Raises:
            NotTrustedError, DamagedError: as there; the faults of all media are reported together.
        """
        beside: list[CheckedMedium] = []
        errors: list[ApplianceError] = []
        for one in self.media:
            try:
                beside.append(_at(one.layout.path, len(self.media), _check_of(one)))
            except ApplianceError as error:
                errors += [error, *error.others]
        if errors:
            raise worst(errors)
        return tuple(beside)

    def check_lengths(self) -> None:
        """Refuse blobs that are longer than signed, before anything is copied.

        A copy ends at the first damaged blob, and not trusted beats damaged.

        Raises:
            NotTrustedError: code `blob.too-long`; with all of them.
        """
        errors = [error for one in self.media for error in _too_long(one)]
        if errors:
            raise worst(errors)


def open_media(paths: Sequence[Path], open_one: OpenBundles, waiting: Waiting | None = None) -> OpenMedia:
    """Verify the chain of trust of every bundle of several media.

    Args:
        paths: untrusted; at least one. One that is named twice counts once.
        open_one: verifies the bundles of one medium: of `by_newest`, or a host's own.
        waiting: how to wait for further media; None where nobody waits.

    Returns:
        The bundles with the evidence, judged by the newest metadata; no chunk was read.

    Raises:
        UsageError: there is no bundle at a path.
        NotTrustedError: the chain does not cover what lies on one of them.
        DamagedError: a manifest or the contents differ from their signed digest.
    """
    once = {os.path.realpath(path): path for path in reversed(paths)}
    named = tuple(dict.fromkeys(path for path in paths if once[os.path.realpath(path)] == path))
    readers = {path: metadata_reader(path) for path in named}

    def open_at(path: Path) -> OpenMedium:
        others = tuple(read for other, read in readers.items() if other != path)
        return OpenMedium(Layout(path, is_filling=waiting is not None and waiting.is_filling), open_one(path, others))

    media = tuple(_at(path, len(named), _opening(path, open_at, waiting)) for path in named)
    bundles = {found.value.manifest: found.value for one in media for found in one.bundles}
    said = set[tuple[Path, frozenset[Digest]]]()

    def report_other(path: Path, named: frozenset[Digest]) -> None:
        if waiting is not None and (path, named) not in said:  # it is looked at once a second
            said.add((path, named))
            waiting.announce(f"{path} holds another bundle, and is not used")

    def admit(path: Path) -> Layout | None:
        return _admit(path, path in named, frozenset(bundles), open_at, report_other)

    source = MediaSet([one.layout for one in media], list(bundles.values()), waiting, admit)
    twice = (f"{path} is named twice, or mounted twice; it counts once" for path in paths if path not in named)
    return OpenMedia(media, source, (*twice, *_older(media), *_same_number(media)))


def by_newest(trust: bytes, floors: Floors, now: datetime, stored: tuple[ReadMetadata, ...] = ()) -> OpenBundles:
    """Open media by the newest valid metadata of all of them and of a host.

    Args:
        trust: bytes of the pinned root file.
        floors: what this host accepts at least.
        now: the clock, in UTC; see `signing.verify`.
        stored: the metadata that the host has stored, as untrusted.
    """

    def open_one(path: Path, others: tuple[ReadMetadata, ...]) -> tuple[Verified[Bundle], ...]:
        sources = (*stored, *others)
        try:
            alone = open_bundles(path, trust, floors, now, links=sources)
        except NotTrustedError as error:
            if error.code != OLDER:  # any other fault is a refusal, whatever others hold
                raise
            alone = ()
        if alone and all(_is_same(read, alone[0].evidence) for read in sources):
            return alone
        return open_bundles(path, trust, floors, now, sources)

    return open_one


def metadata_reader(folder: Path) -> ReadMetadata:
    """Read the metadata of a folder as a further source: what cannot be read there is none."""
    read = Layout(folder).chain(b"").read_metadata

    def read_or_none(name: str, most: int) -> bytes | None:
        try:
            return read(name, most)
        except (DamagedError, NotTrustedError):
            return None

    return read_or_none


def _opening(path: Path, open_at: Callable[[Path], OpenMedium], waiting: Waiting | None) -> Callable[[], OpenMedium]:
    """Open a medium; a folder that is filling is waited for until all but its blobs is there."""

    def work() -> OpenMedium:
        said = set[str]()
        while True:
            try:
                found = open_at(path)
                if waiting is not None and waiting.is_filling:
                    check_medium(found.layout, found.bundles)
                return found
            except ApplianceError as error:
                if waiting is None or not waiting.is_filling or not _may_arrive(error):
                    raise
                if str(error) not in said:
                    said.add(str(error))
                    waiting.announce(f"waiting for {path}: {error}")
            waiting.watch.wait()

    return work


def _may_arrive(error: ApplianceError) -> bool:
    """Whether a fault is what a folder shows that is not filled yet."""
    faults = (error, *error.others)
    return all(isinstance(one, DamagedError) or one.code in _NOT_THERE_YET for one in faults)


def _admit(
    path: Path,
    is_named: bool,
    wanted: frozenset[Digest],
    open_at: Callable[[Path], OpenMedium],
    report_other: Callable[[Path, frozenset[Digest]], None],
) -> Layout | None:
    """Judge a medium that has arrived; one that holds other bundles is reported, and not used."""
    layout = Layout(path)
    try:
        named = frozenset(one.sha256 for one in read_index(layout))
    except UsageError:
        return None
    except NotTrustedError:
        if is_named:
            raise
        return None  # something else was mounted on this machine
    if not named & wanted:
        report_other(path, named)
        return None
    found = open_at(path)
    check_medium(found.layout, found.bundles)
    return found.layout


def _too_long(medium: OpenMedium) -> Iterator[ApplianceError]:
    for chunk in {chunk for found in medium.bundles for chunk in found.value.blobs}:
        path = blob_path(chunk.sha256)
        with suppress(OSError):
            size = os.lstat(medium.layout.path / path).st_size
            if size > chunk.size:
                subject = str(medium.layout.path / path)
                yield NotTrustedError("blob.too-long", subject, expected=f"{chunk.size} bytes", found=f"{size} bytes")


def _check_of(medium: OpenMedium) -> Callable[[], CheckedMedium]:
    return lambda: check_medium(medium.layout, medium.bundles)


def _at(path: Path, count: int, work: Callable[[], T]) -> T:
    """Do work on one of several media; its errors name that medium, or that it was pulled out."""
    try:
        return work()
    except ApplianceError as error:
        mount = mount_of(path)
        if mount is not None and mount.is_gone:
            raise unplugged((path,)) from None
        if count > 1 and not error.subject.startswith(str(path)):
            error.subject = f"{path}: {error.subject}"
        raise


def _older(media: Sequence[OpenMedium]) -> Iterator[str]:
    """Media whose metadata are older than those of another medium, which were used."""
    newest = media[0].bundles[0].evidence.metadata.get(_TIMESTAMP)
    held = {one.layout.path: metadata_reader(one.layout.path)(_TIMESTAMP, MAX_BYTES["timestamp"]) for one in media}
    better = [path for path, data in held.items() if data == newest]
    for path, data in held.items():
        if better and data != newest:
            yield f"{path} has older metadata than {better[0]}: judged by the newer ones"


def _same_number(media: Sequence[OpenMedium]) -> Iterator[str]:
    """Different media that state to be the same stick of a set."""
    seen: dict[tuple[str, int], Path] = {}
    for one in media:
        card = read_card(one.layout)
        if card is None:
            continue
        first = seen.setdefault((card.set, card.number), one.layout.path)
        if first != one.layout.path:
            yield f"{first} and {one.layout.path} both state that they are stick {card.number} of this set"


def _is_same(read: ReadMetadata, evidence: Evidence) -> bool:
    """Whether a source holds nothing beyond the metadata that were verified already."""
    successor = f"{evidence.floors.root + 1}.root.json"
    return read(successor, MAX_BYTES["root"]) is None and all(
        read(name, len(data)) == data for name, data in evidence.metadata.items()
    )
