"""The state of a set of media: what is there, missing and damaged, and where (`appliance stick check`).

Owns the comparison of every copy of every blob, on each medium by itself, and the words for the next step. It changes
nothing on a medium. It decides no other verdict than `verify`: what is missing is 5 or 3 as `MediaSet.absent` has it.

Rules:
- a damaged copy is reported also where another medium has a right one: that medium is to be written again;
- a blob counts as rebuilt only after it was rebuilt and compared;
- `STICK.json` gives numbers of sticks for people, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bundles.bundle import Bundle
from bundles.chunks.check import check_blob, files_by_chunk
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import Seeds
from bundles.medium_check import check_medium
from bundles.oci.layout import Layout, blob_path
from bundles.oci.litter import describe_beside
from bundles.parallel import judge_all
from bundles.parity.streams import read_parity
from bundles.progress import OnProgress, ignore
from bundles.report import fault_fields
from bundles.stick.card import StickCard, read_card
from bundles.stick.media import OpenMedia, OpenMedium
from bundles.stick.media_check import is_held
from bundles.stick.missing import sticks_with
from bundles.stick.ranges import format_ranges
from signing.errors import ApplianceError, worst


@dataclass(frozen=True)
class MediumState:
    """One medium of the set.

    Args:
        layout: where it lies.
        card: what it states about itself, untrusted; None where it states nothing.
        blobs, size_bytes: right blobs of the bundles that lie there.
        faults: blobs that are not right, by the blob.
        error: what is wrong beside the blobs; None where nothing is.
        has_parity: whether it holds a parity.
    """

    layout: Layout
    card: StickCard | None
    blobs: int
    size_bytes: int
    faults: dict[Chunk, ApplianceError]
    error: ApplianceError | None
    has_parity: bool

    @property
    def label(self) -> str:
        """Its path and number: `/media/a, stick 1 of 3`."""
        if self.card is None:
            return str(self.layout.path)
        of = f" of {self.card.of}" if self.card.of else ""
        return f"{self.layout.path}, stick {self.card.number}{of}"


@dataclass(frozen=True)
class BundleState:
    """One bundle of the set.

    Args:
        bundle: verified.
        present: its blobs of which a right copy is here, or could be rebuilt.
        rebuilt: those of them that were rebuilt from a parity.
        held: blobs that are on no medium and on this host, where they were hashed: a delta leaves them out.
        missing: blobs of which there is no copy, in the order of the bundle.
        damaged: blobs of which there are copies, and no right one.
        sticks: numbers of the sticks that should have what is missing.
    """

    bundle: Bundle
    present: tuple[Chunk, ...]
    rebuilt: tuple[Chunk, ...]
    held: tuple[Chunk, ...]
    missing: tuple[Chunk, ...]
    damaged: tuple[Chunk, ...]
    sticks: tuple[int, ...]

    @property
    def wanted(self) -> str:
        """What has to be sent again, as ranges with a check word; empty where nothing has."""
        return format_ranges(self.bundle, {chunk.sha256 for chunk in (*self.missing, *self.damaged)})


@dataclass(frozen=True)
class SetState:
    """The state of a set.

    Args:
        media, bundles: in their order.
        error: what the command ends with; None where all is right.
    """

    media: tuple[MediumState, ...]
    bundles: tuple[BundleState, ...]
    error: ApplianceError | None


def check_set(media: OpenMedia, on_progress: OnProgress = ignore, seeds: Seeds | None = None) -> SetState:
    """Compare every copy of every blob on some media.

    Args:
        media: whose chain of trust holds.
        on_progress: called with bytes done.
        seeds: places on this host that may hold what a delta leaves out.

    Returns:
        The state. Every byte of a blob was read once, and what was rebuilt once more.
    """
    bundles = [found.value for found in media.bundles]
    users = {chunk: files for bundle in bundles for chunk, files in _named_blobs(bundle).items()}
    copies = [(one.layout, chunk) for one in media.media for chunk in users if _lies_on(one.layout, chunk)]
    found = judge_all(
        {copy: copy[1].size for copy in copies},
        lambda copy: check_blob(copy[0], copy[1], users[copy[1]]),
        "checking blobs",
        on_progress,
    )
    states = tuple(_medium(one, [chunk for at, chunk in copies if at is one.layout], found) for one in media.media)
    right = {chunk for layout, chunk in copies if (layout, chunk) not in found}
    touched = {chunk for _, chunk in copies}
    cards = [one.card for one in states if one.card is not None]
    judged = tuple(_bundle(media, bundle, right, touched, cards, seeds or {}) for bundle in bundles)
    return SetState(states, judged, _error(media, states, judged))


def describe_state(state: SetState) -> dict[str, object]:
    """The state as a JSON object."""
    return {
        "media": [_describe_medium(one) for one in state.media],
        "bundles": [_describe_bundle(one, state.media) for one in state.bundles],
        "next": list(next_steps(state)),
    }


def next_steps(state: SetState) -> Iterator[str]:
    """What to do next, one step each; the first one comes first."""
    errors = [one.error for one in state.media if one.error is not None]
    if any(one.exit_code == 4 for one in (*errors, *(fault for at in state.media for fault in at.faults.values()))):
        yield "do not use a medium that is not trusted: keep it as it is, and call a key holder"
    for medium in state.media:
        if medium.faults or medium.error is not None:
            yield f"write {medium.label} again, or copy it again: only what differs is written"
    for one in state.bundles:
        if one.missing and one.sticks:
            yield f"plug in stick {', '.join(map(str, one.sticks))}, and name it, too"
        if one.wanted:
            condition = "where that stick is lost, " if one.missing and one.sticks else ""
            yield f"{condition}read this out to the sender of {one.bundle.label}: {one.wanted}"
            yield f"the sender then types: appliance stick write BUNDLE STICK --only '{one.wanted}'"
    if state.error is None:
        yield "nothing: every blob is here, and is what was signed"


def _named_blobs(bundle: Bundle) -> dict[Chunk, list[str]]:
    users = files_by_chunk(bundle)
    documents = {Chunk(bundle.manifest, bundle.manifest_size): ["manifest"], bundle.config: ["contents.json"]}
    return {**documents, **users}


def _lies_on(layout: Layout, chunk: Chunk) -> bool:
    return os.path.lexists(layout.path / blob_path(chunk.sha256))


def _medium(
    medium: OpenMedium, chunks: Sequence[Chunk], found: dict[tuple[Layout, Chunk], ApplianceError]
) -> MediumState:
    layout = medium.layout
    error: ApplianceError | None = None
    try:
        check_medium(layout, medium.bundles)
    except ApplianceError as fault:
        error = fault
    faults = {chunk: found[layout, chunk] for chunk in chunks if (layout, chunk) in found}
    right = [chunk for chunk in chunks if chunk not in faults]
    size = sum(chunk.size for chunk in right)
    return MediumState(
        layout, read_card(layout), len(right), size, faults, error, has_parity=read_parity(layout) is not None
    )


def _bundle(
    media: OpenMedia,
    bundle: Bundle,
    right: set[Chunk],
    touched: set[Chunk],
    cards: Sequence[StickCard],
    seeds: Seeds,
) -> BundleState:
    absent = [chunk for chunk in bundle.blobs if chunk not in touched]
    rebuilt = tuple(chunk for chunk in absent if _is_rebuilt(media, chunk))
    held = tuple(chunk for chunk in absent if chunk not in rebuilt and is_held(chunk, seeds))
    known = {*rebuilt, *held}
    missing = tuple(chunk for chunk in absent if chunk not in known)
    present = tuple(chunk for chunk in bundle.blobs if chunk in right or chunk in rebuilt)
    damaged = tuple(chunk for chunk in bundle.blobs if chunk in touched and chunk not in right)
    return BundleState(bundle, present, rebuilt, held, missing, damaged, sticks_with(missing, [bundle], cards))


def _is_rebuilt(media: OpenMedia, chunk: Chunk) -> bool:
    if not media.source.holds(chunk):
        return False
    try:
        os.close(media.source.open_chunk(chunk))
    except ApplianceError:
        return False
    return True


def _error(media: OpenMedia, states: Sequence[MediumState], judged: Sequence[BundleState]) -> ApplianceError | None:
    errors: list[ApplianceError] = []
    for one in states:
        for error in (*(() if one.error is None else (one.error, *one.error.others)), *one.faults.values()):
            if len(states) > 1 and not error.subject.startswith(str(one.layout.path)):
                error.subject = f"{one.layout.path}: {error.subject}"
            errors.append(error)
    if missing := [chunk for one in judged for chunk in one.missing]:
        errors.append(media.source.absent(missing))
    return worst(errors) if errors else None


def _describe_medium(one: MediumState) -> dict[str, object]:
    return {
        "path": str(one.layout.path),
        "number": one.card.number if one.card else None,
        "of": one.card.of if one.card else None,
        "blobs": one.blobs,
        "bytes": one.size_bytes,
        "damaged": [chunk.sha256 for chunk in one.faults],
        "parity": one.has_parity,
        "error": fault_fields(one.error) if one.error else None,
        **describe_beside(one.layout),
    }


def _describe_bundle(one: BundleState, media: Sequence[MediumState]) -> dict[str, object]:
    users, models = _named_blobs(one.bundle), {model.path: model.name for model in one.bundle.contents.models}
    numbers = {chunk: number for number, chunk in enumerate(one.bundle.blobs, 1)}
    damaged = [
        {
            "blob": chunk.sha256,
            "number": numbers[chunk],
            "files": users[chunk],
            "models": [models[path] for path in users[chunk] if path in models],
            "media": [str(at.layout.path) for at in media if chunk in at.faults],
            "is_elsewhere": chunk in one.present,
        }
        for chunk in one.bundle.blobs
        if any(chunk in at.faults for at in media)
    ]
    return {
        "name": one.bundle.contents.name,
        "version": one.bundle.contents.version,
        "manifest": one.bundle.manifest,
        "blobs": len(one.bundle.blobs),
        "present": len(one.present),
        "rebuilt": len(one.rebuilt),
        "on_this_host": len(one.held),
        "missing": [{"blob": chunk.sha256, "number": numbers[chunk], "bytes": chunk.size} for chunk in one.missing],
        "missing_bytes": sum(chunk.size for chunk in one.missing),
        "missing_on_sticks": list(one.sticks),
        "damaged": damaged,
        "wanted": one.wanted,
    }
