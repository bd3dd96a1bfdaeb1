"""Compares every byte of the media that together hold bundles with what was signed.

Owns the verdict over several media, which `appliance verify` and `verify.pyz` give. Each byte of the media that are
named is read once. It must never stop at the first difference.

Rules:
- a blob that lies on several of the media is compared on each of them;
- a medium that arrives later is asked only for what is missing still;
- a blob that a parity rebuilds counts once it was rebuilt and compared;
- a blob that is on no medium is lost (3), or on another stick (5), by what the media state;
- where a host is named that holds the rest, as it does for a delta, its copies are compared, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bundles.bundle import Bundle
from bundles.chunks.check import files_by_chunk, find_differences, hash_range
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import Seeds
from bundles.medium_check import CheckedMedium
from bundles.oci.layout import Layout
from bundles.oci.litter import describe_beside
from bundles.progress import OnProgress, ignore
from bundles.report import describe_attested, describe_boot, escape
from bundles.stick.media import OpenMedia
from bundles.stick.missing import lost
from signing.errors import ApplianceError, DamagedError, worst


@dataclass(frozen=True)
class CheckedMedia:
    """How much was compared.

    Args:
        files, blobs, size_bytes: of all bundles together, each blob once.
        held: how many of the blobs were found on the host alone.
        rebuilt: how many lie on no medium that is here, and were rebuilt from a parity and compared.
        beside: what lies beside the blobs, in the order of the media.
    """

    files: int
    blobs: int
    size_bytes: int
    held: int
    rebuilt: int
    beside: tuple[CheckedMedium, ...]


def check_media(media: OpenMedia, on_progress: OnProgress = ignore, seeds: Seeds | None = None) -> CheckedMedia:
    """Compare everything on media, as one answer for all bundles that they name.

    Args:
        media: of `open_media`; where somebody waits, further media are waited for.
        on_progress: called with bytes done, for each medium.
        seeds: places on a host that should hold chunks that are on no medium.

    Returns:
        How much was compared; every blob of every bundle is right.

    Raises:
        NotTrustedError: something on a medium does not belong there, or is longer than signed; beats damaged.
        DamagedError: blobs or files of `BOOT/` are missing, unreadable or differ.
        NextStickError: nothing is wrong with what is here, and blobs are on a stick that is not.
    """
    bundles = [found.value for found in media.bundles]
    check = _Check(media, bundles, on_progress)
    beside = check.names()
    for layout in media.source.layouts:
        check.compare(layout, check.users)
    places = seeds or {}
    media.source.use_places(lambda digest: places.get(digest, ()))
    held = check.count_held(places)
    check.find_rest()
    if check.is_waiting_done():
        beside = check.names()
    if check.errors:
        raise worst(check.errors)
    files = sum(len(bundle.contents.files) for bundle in bundles)
    return CheckedMedia(files, len(check.users), sum(chunk.size for chunk in check.users), held, check.rebuilt, beside)


def describe_checked(media: OpenMedia, checked: CheckedMedia) -> dict[str, object]:
    """What was found beside the blobs, as JSON members for the report of a check.

    Args:
        media: as they were given to `check_media`.
        checked: its answer.
    """
    found = [
        {
            "path": escape(str(one.layout.path)),
            "boot": describe_boot(one.bundles[0], beside.boot),
            "attestations": describe_attested(beside.attested),
            **describe_beside(one.layout),
        }
        for one, beside in zip(media.media, checked.beside)
    ]
    first = {name: value for name, value in found[0].items() if name != "path"}
    counts = {"on_this_host": checked.held, "rebuilt": checked.rebuilt}
    more = {name: count for name, count in counts.items() if count}
    return {**first, **more, **({"media": found} if len(found) > 1 else {})}


class _Check:
    """One check, with what was found until here."""

    def __init__(self, media: OpenMedia, bundles: Sequence[Bundle], on_progress: OnProgress) -> None:
        self.media, self.bundles, self.on_progress = media, bundles, on_progress
        self.users = files_by_chunk(*bundles)
        self.left = dict.fromkeys(self.users)
        self.errors: list[ApplianceError] = []
        self.has_waited = False
        self.rebuilt = 0

    def names(self) -> tuple[CheckedMedium, ...]:
        """Check all but the blobs on each of the media."""
        try:
            return self.media.check()
        except ApplianceError as error:
            self.errors += [error, *error.others]
            return ()

    def compare(self, layout: Layout, wanted: Iterable[Chunk]) -> None:
        """Hash blobs that a medium holds."""
        source = self.media.source
        here = {chunk: self.users[chunk] for chunk in wanted if layout in source.holders(chunk)}
        for chunk, error in find_differences(layout, here, self.on_progress).items():
            # A medium that was pulled out is not damaged.
            if not isinstance(error, DamagedError) or source.holds(chunk):
                if len(self.media.media) > 1 or self.has_waited:
                    error.subject = f"{layout.path}: {error.subject}"
                self.errors.append(error)
            else:
                del here[chunk]
        for chunk in here:
            self.left.pop(chunk, None)

    def count_held(self, seeds: Seeds) -> int:
        """Hash what the host holds of the blobs that are on no medium."""
        before = len(self.left)
        for chunk in [chunk for chunk in self.left if is_held(chunk, seeds)]:
            del self.left[chunk]
        return before - len(self.left)

    def find_rest(self) -> None:
        """Wait for the media with the rest, or say what is missing."""
        source = self.media.source
        while self.left:
            self.rebuild()
            self.errors += [lost(chunk, self.bundles) for chunk in self.left if not source.is_elsewhere(chunk)]
            if self.errors or not self.left:
                return
            try:
                source.wait_for(tuple(self.left))
            except ApplianceError as error:
                self.errors += [error, *error.others]
                return
            self.has_waited = True
            for layout in source.layouts:
                self.compare(layout, tuple(self.left))

    def rebuild(self) -> None:
        """Rebuild what lies on no medium, where a parity allows it; the source compares each blob."""
        source = self.media.source
        for chunk in [chunk for chunk in self.left if not source.lies_here(chunk) and source.holds(chunk)]:
            try:
                os.close(source.open_chunk(chunk))
            except ApplianceError as error:
                self.errors.append(error)
                return
            del self.left[chunk]
            self.rebuilt += 1

    def is_waiting_done(self) -> bool:
        """Whether names are to be checked again: a folder that was filling is full."""
        return self.has_waited and not self.errors and any(one.layout.is_filling for one in self.media.media)


def is_held(chunk: Chunk, seeds: Seeds) -> bool:
    """Whether a place on this host holds a chunk: it is hashed there."""
    for seed in seeds.get(chunk.sha256, ()):
        try:
            descriptor = os.open(seed.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if hash_range(descriptor, seed.offset, chunk.size) == chunk.sha256:
                return True
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return False
