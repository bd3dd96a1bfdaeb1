"""Writes bundles to one or several sticks, and proves that they arrived (docs/architecture.md, Sticks).

Owns the order of a writing. It must never delete what it finds on a stick. Files of an older writing of the same
bundles are the exception, and blobs of other bundles after a yes.

Rules:
- only blobs that no stick of the round holds are written;
- the small files come after the blobs, and the index last;
- afterwards every file is read back from the medium, past the cache, and what differs is written once more;
- source and stick pass the same check of names, metadata and `BOOT/` as `verify` makes;
- a stick that holds another bundle is refused rather than mixed, unless a person has it replaced;
- a stick is made safe to pull before the next one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from bundles.bundle import Bundle
from bundles.chunks.check import Checked
from bundles.chunks.chunk import Chunk
from bundles.delta import needs_boot
from bundles.medium import disk_full, explain_write
from bundles.medium_check import CheckedMedium, check_medium
from bundles.oci.covered_names import is_boot_path
from bundles.oci.layout import BOOT, INDEX_FILE, PARITY, STICK_FILE, Layout, blob_path
from bundles.parity.streams import ParityStreams, plan_parity, write_parity
from bundles.progress import OnProgress, ignore
from bundles.stick.blob_batches import write_blobs
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from bundles.stick.media import OpenMedia, OpenMedium
from bundles.stick.media_set import MediaSet
from bundles.stick.missing import format_bytes
from bundles.stick.placement import Placement, common_blobs, order_by_worth, place
from bundles.stick.read_back import make_durable, read_back
from bundles.stick.safe_removal import Removal, make_removable
from bundles.stick.small_files import older_files, read_small_files
from bundles.stick.stick_state import (
    StickState,
    look_at,
    other_bundle,
    refuse_own_files,
    refuse_source,
    refuse_twice,
    takes_nothing,
    too_small,
)
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, UsageError
from signing.verified import Verified

NextSticks = Callable[[int], Sequence[Path]]
"""Asks for further sticks: gets the bytes that are left, returns their folders; none where nobody brings one."""
MayRemove = Callable[[Path, Sequence[str], int], bool]
"""Asks a person about what is to be removed: the stick, the paths on it, and their bytes."""
ParityStick = Callable[[int], Optional[Path]]
"""Asks for the stick of the parity: gets the bytes of the parity, returns its folder; None where nobody brings one."""


@dataclass(frozen=True)
class WriteChoice:
    """What is carried, and what may happen to a stick.

    Args:
        wanted: chunks to be carried; None for all.
        may_remove: asked before blobs of other bundles are removed; None where a stick with such is refused.
        keep_mounted: leave the sticks mounted.
        next_sticks: asks for further sticks; None where nobody waits.
        parity_stick: asks for one stick more, from which any one of the others can be rebuilt; None for no parity.
        announce: gets lines for people: what goes to which stick, before it is written there; and a further stick
            that cannot be used.
        reads: the newest format of contents that the program on the other side reads; None where there may be none.
        before: how many sticks of this set an earlier call has written: the first one here has the next number.
    """

    wanted: Collection[Digest] | None = None
    may_remove: MayRemove | None = None
    keep_mounted: bool = False
    next_sticks: NextSticks | None = None
    parity_stick: ParityStick | None = None
    announce: Callable[[str], None] = lambda _: None
    reads: int | None = None
    before: int = 0


@dataclass(frozen=True)
class Written:
    """What the writing of one stick did.

    Args:
        path: of the stick.
        blobs, size_bytes: blobs that had to be written, and their bytes.
        checked: what was read back.
        beside: what lies beside the blobs.
        is_proven: whether the kernel counted every byte as read from the device.
        removed: paths that were removed, of other bundles.
        removal: whether it may be pulled out.
    """

    path: Path
    blobs: int
    size_bytes: int
    checked: Checked
    beside: CheckedMedium
    is_proven: bool
    removed: tuple[str, ...]
    removal: Removal


@dataclass(frozen=True)
class WrittenSet:
    """The sticks that were written, in their order, and the blobs that fit on none of them.

    Args:
        sticks: the one of the parity is the last.
        left: what has yet to be carried.
        parity_bytes: how long the parity is; 0 where none was written.
        parity_error: why no parity could be written, such as a stick that is too small; None where nothing failed.
    """

    sticks: tuple[Written, ...]
    left: tuple[Chunk, ...]
    parity_bytes: int = 0
    parity_error: UsageError | None = None

    @property
    def left_bytes(self) -> int:
        """How much has yet to be carried by further sticks."""
        return sum(chunk.size for chunk in self.left)


def write_stick(
    source: Layout, found: Verified[Bundle], destination: Path, on_progress: OnProgress = ignore
) -> Written:
    """Write all of a bundle to one stick, and leave it mounted; errors as for `write_sticks`.

    Args:
        source: the bundle's layout.
        found: the bundle, verified there.
        destination: the stick's folder; made where it is missing.
        on_progress: called with bytes written, then with bytes read back.

    Raises:
        ApplianceError: it does not fit (code `disk.full`).
    """
    media = OpenMedia((OpenMedium(source, (found,)),), MediaSet([source], [found.value]))
    written = write_sticks(media, [destination], WriteChoice(keep_mounted=True), on_progress)
    if written.left:
        raise disk_full(destination, written.left_bytes)
    return written.sticks[0]


def write_sticks(
    media: OpenMedia,
    destinations: Sequence[Path],
    choice: WriteChoice = WriteChoice(),
    on_progress: OnProgress = ignore,
) -> WrittenSet:
    """Write bundles to sticks, until everything is carried or nobody brings a further stick.

    Args:
        media: every bundle of them is written; they are checked first.
        destinations: folders of the sticks that are there, in the order in which they are filled; made where missing.
        choice: what is carried, and what may happen to a stick.
        on_progress: called with bytes written, then with bytes read back.

    Raises:
        NotTrustedError: something lies in a source or on a stick that does not belong there.
        DamagedError: a source differs from what was signed, or a stick does not keep what is written to it.
        UsageError: a stick holds another bundle, or has no room even for what every stick needs.
        NextStickError: a stick was pulled out (code `stick.unplugged`).
        ApplianceError: no space left on a stick (code `disk.full`), or it could not keep something (`write.failed`).
    """
    media.check()
    work = _Work(media, choice, on_progress)
    rest = work.write_round(destinations, choice.wanted)
    while rest.left and choice.next_sticks is not None:
        further = choice.next_sticks(rest.left_bytes)
        if not further:
            break
        try:
            rest = work.write_round(further, {chunk.sha256 for chunk in rest.left})
        except UsageError as error:  # this stick was not touched, and another one may do
            words = f"expected {error.expected}, found {error.found}; {error.hint} ({error.code})"
            choice.announce(f"{error.subject} is not used: {words}")
    if rest.left or choice.parity_stick is None:
        return WrittenSet(tuple(work.written), rest.left)
    try:
        parity_bytes = work.write_parity_stick(choice.parity_stick)
    except UsageError as error:  # the other sticks are written all the same
        return WrittenSet(tuple(work.written), (), 0, error)
    return WrittenSet(tuple(work.written), (), parity_bytes)


@dataclass
class _Work:
    """One writing of a set, over all of its rounds."""

    media: OpenMedia
    choice: WriteChoice
    on_progress: OnProgress
    written: list[Written] = field(default_factory=list)
    shares: list[tuple[Chunk, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = self.media.bundles
        self.bundles = [one.value for one in self.found]
        self.small = read_small_files([one.layout for one in self.media.media], self.bundles)

    def write_round(self, destinations: Sequence[Path], wanted: Collection[Digest] | None) -> Placement:
        """Write what fits on the sticks that are there."""
        states = [self._look(path) for path in destinations]
        refuse_twice(states)
        removed = [self._removable(state) for state in states]
        rooms = [state.room(replaces=bool(paths)) for state, paths in zip(states, removed)]
        placed = place(self.bundles, rooms, wanted, [len(data) for data in self.small.values()])
        for state, share in zip(states, placed.shares):
            if share is None:
                raise too_small(state)
        if self.shares and not any(chunk.sha256 in (wanted or ()) for share in placed.shares for chunk in share or ()):
            raise takes_nothing(states[0])
        first = len(self.shares)
        self.shares.extend(share or () for share in placed.shares)
        more = self.choice.parity_stick is not None
        self._announce(states, placed)
        for at, state in enumerate(states):
            card = self._card(first + at, None if placed.left else len(self.shares) + more)
            self.written.append(self._write_here(state, self.shares[first + at], removed[at], card))
            if self.choice.next_sticks is not None and (placed.left or more):  # it is pulled before the next one comes
                self.choice.announce(f"{state.layout.path}: {self.written[-1].removal.words}")
        return placed

    def write_parity_stick(self, ask: ParityStick) -> int:
        """Write one stick more, with the parity of all that were written.

        Returns:
            The length of the parity in bytes; 0 where nobody brings a stick.
        """
        common = common_blobs(self.bundles)
        plan = self._plan_parity()
        path = ask(plan.size_bytes)
        if path is None:
            return 0
        state = self._look(path)
        removed = self._removable(state)
        sizes = [*(len(data) for data in self.small.values()), *(size for _, size in plan.pieces)]
        if place(self.bundles, [state.room(replaces=bool(removed))], set(), sizes).shares[0] is None:
            raise too_small(state, f"room for {plan.size_bytes} bytes of parity, and for what every stick holds")
        self.shares.append(tuple(dict.fromkeys(common)))
        card = self._card(len(self.shares) - 1, len(self.shares))
        self.written.append(self._write_here(state, self.shares[-1], removed, card, plan))
        return plan.size_bytes

    def _plan_parity(self) -> ParityStreams:
        common = set(common_blobs(self.bundles))
        # In one order, so that the same placement gives the same parity.
        order = [chunk for chunk in order_by_worth(self.bundles) if chunk not in common]
        return plan_parity([[chunk for chunk in order if chunk in held] for held in map(set, self.shares)])

    def _announce(self, states: Sequence[StickState], placed: Placement) -> None:
        """Show what goes to which stick; for a lone stick that takes everything the progress shows it."""
        has_parity = self.choice.parity_stick is not None
        if len(self.shares) == 1 and not placed.left and not has_parity:
            return
        first = len(self.shares) - len(states)
        for at, state in enumerate(states, first):
            number = self.choice.before + at + 1
            missing = [chunk for chunk in self.shares[at] if chunk.sha256 not in state.held]
            size = format_bytes(sum(chunk.size for chunk in missing))
            self.choice.announce(f"stick {number}, {state.layout.path}: {len(missing)} blobs to write, {size}")
        if placed.left:
            size = format_bytes(sum(chunk.size for chunk in placed.left))
            self.choice.announce(f"for further sticks: {len(placed.left)} blobs, {size}")
        elif has_parity:
            self.choice.announce(f"one stick more for the parity: {format_bytes(self._plan_parity().size_bytes)}")

    def _small_files(self, stick: Layout) -> dict[str, bytes]:
        """What lies beside the blobs; a stick for a place that has a program gets no `BOOT/` that it has not got."""
        reads = self.choice.reads
        bundles = self.bundles
        if reads is None or any(needs_boot(one.contents, reads) for one in bundles) or stick.medium.list(BOOT):
            return self.small
        return {path: data for path, data in self.small.items() if not is_boot_path(path)}

    def _look(self, path: Path) -> StickState:
        refuse_source(path, [one.layout.path for one in self.media.media])
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_write(error, path, 0) from None
        state = look_at(Layout(path), self.bundles)
        refuse_own_files(state.layout, self.small)
        return state

    def _removable(self, state: StickState) -> tuple[str, ...]:
        ask = self.choice.may_remove
        if not state.others and (ask is None or not state.foreign):
            return ()
        if ask is None or not ask(state.layout.path, state.foreign, state.foreign_bytes):
            raise other_bundle(state, self.bundles)
        return state.foreign

    def _card(self, at: int, of: int | None) -> bytes:
        before = self.choice.before  # what an earlier call wrote where is not known here
        held = [*(set[Digest]() for _ in range(before)), *({chunk.sha256 for chunk in share} for share in self.shares)]
        placement = tuple(tuple(runs_of(bundle, digests) for bundle in self.bundles) for digests in held)
        named = tuple(StickBundle(one.contents.name, one.contents.version, one.manifest) for one in self.bundles)
        name = name_set(bundle.manifest for bundle in self.bundles)
        return write_card(StickCard(name, before + at + 1, of and before + of, named, placement))

    def _write_here(
        self,
        state: StickState,
        share: tuple[Chunk, ...],
        removed: tuple[str, ...],
        card: bytes,
        parity: ParityStreams | None = None,
    ) -> Written:
        try:
            return self._write(state, share, removed, card, parity)
        except (ApplianceError, OSError) as error:
            state.require_there(error)
            raise

    def _write(
        self,
        state: StickState,
        share: tuple[Chunk, ...],
        removed: tuple[str, ...],
        card: bytes,
        parity: ParityStreams | None,
    ) -> Written:
        stick = state.layout
        state.require_there()
        _remove(stick, removed)
        blobs = {blob_path(chunk.sha256): chunk for chunk in share}
        missing = [chunk for chunk in share if chunk.sha256 not in state.held]
        write_blobs(self.media.source, stick, missing, self.on_progress)
        pieces = write_parity(parity, self.media.source.open_chunk, stick, self.on_progress) if parity else {}
        small = {STICK_FILE: card, **self._small_files(stick)}
        for path, data in small.items():
            state.require_there()
            stick.medium.write(path, data)
        for path in older_files(stick, small):
            stick.medium.remove(path)
        files = blobs | {path: Chunk(sha256(data), len(data)) for path, data in small.items()}
        back = read_back(stick, files | pieces, self.on_progress)
        state.require_there()
        if back.differing:
            self._mend(stick, back.differing, small, parity)
            counted = set(missing)
            missing += [chunk for path, chunk in back.differing.items() if path in blobs and chunk not in counted]
        beside = check_medium(stick, self.found)
        checked = Checked(self._files_in(share), len(share), sum(chunk.size for chunk in share))
        written = sum(chunk.size for chunk in missing)
        state.require_there()
        removal = make_removable(stick.path, keep_mounted=self.choice.keep_mounted)
        return Written(stick.path, len(missing), written, checked, beside, back.is_proven, removed, removal)

    def _mend(
        self, stick: Layout, differing: dict[str, Chunk], small: dict[str, bytes], parity: ParityStreams | None
    ) -> None:
        """Write once more what a stick did not give back; a stick that then differs still is worth nothing."""
        blobs = [chunk for path, chunk in differing.items() if path == blob_path(chunk.sha256)]
        write_blobs(self.media.source, stick, blobs, ignore)
        if parity is not None and any(path.startswith(f"{PARITY}/") for path in differing):
            write_parity(parity, self.media.source.open_chunk, stick)
        for path in differing:
            if path in small:
                stick.medium.write(path, small[path])
        if read_back(stick, differing, ignore).differing:
            raise DamagedError(
                "stick.does-not-keep",
                str(stick.path),
                expected="the bytes that were written to it",
                found="other bytes when read back",
                hint="this medium is worn out or a fake; use another one (the programs f3write and f3read test it)",
            )

    def _files_in(self, share: Collection[Chunk]) -> int:
        there = {chunk.sha256 for chunk in share}
        files = [file for bundle in self.bundles for file in bundle.contents.files]
        return sum(all(chunk.sha256 in there for chunk in file.chunks) for file in files)


def _remove(stick: Layout, paths: Sequence[str]) -> None:
    # Without its index the old bundle does not look whole while it is taken away.
    for path in (INDEX_FILE, *paths) if paths else ():
        try:
            stick.medium.remove(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise explain_write(error, stick.path / path, 0) from None
    if paths:
        make_durable(stick.path)
