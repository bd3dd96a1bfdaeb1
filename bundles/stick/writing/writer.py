"""Writes bundles to one or several sticks (docs/architecture.md, Sticks).

Owns what goes to which stick, and which further sticks are asked for. It must never delete what it finds on a stick.
Files of an older writing of the same bundles are the exception, and blobs of other bundles after a yes.

Rules:
- only blobs that no stick of the round holds are written; what each stick gets is decided before the first is written;
- sticks of different disks are filled at the same time, those of one disk one after the other;
- a stick that fails leaves the others to their work; nothing further is asked for then;
- sources pass the same check of names, metadata and `BOOT/` as `verify` makes;
- a stick that holds another bundle is refused rather than mixed, unless a person has it replaced;
- a stick is made safe to pull before the next one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Optional

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.delta import needs_boot
from bundles.medium import disk_full, explain_write
from bundles.oci.covered_names import is_boot_path
from bundles.oci.layout import BOOT, Layout
from bundles.parity.streams import ParityStreams, plan_parity
from bundles.progress import OnProgress, Progress, ignore
from bundles.report import format_size
from bundles.stick.card import StickBundle, StickCard, name_set, runs_of, write_card
from bundles.stick.media import OpenMedia, OpenMedium
from bundles.stick.media_set import MediaSet
from bundles.stick.writing.disks import disks_of, lanes_of
from bundles.stick.writing.filling import Filling, Unwritten, Written, fill, gravest
from bundles.stick.writing.lanes import run_lanes
from bundles.stick.writing.pace import Pace
from bundles.stick.writing.placement import Placement, common_blobs, order_by_worth, place
from bundles.stick.writing.small_files import read_small_files
from bundles.stick.writing.stick_state import (
    StickState,
    look_at,
    other_bundle,
    refuse_own_files,
    refuse_source,
    refuse_twice,
    takes_nothing,
    too_small,
)
from signing.digest import Digest
from signing.errors import ApplianceError, UsageError
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
class WrittenSet:
    """The sticks that were written, in their order, and the blobs that fit on none of them.

    Args:
        sticks: the one of the parity is the last.
        left: what has yet to be carried, and was placed on no stick.
        parity_bytes: how long the parity is; 0 where none was written.
        parity_error: why no parity could be written, such as a stick that is too small; None where nothing failed.
        failed: sticks that could not be filled; they hold some of their share, and each blob there is whole.
    """

    sticks: tuple[Written, ...]
    left: tuple[Chunk, ...]
    parity_bytes: int = 0
    parity_error: UsageError | None = None
    failed: tuple[Unwritten, ...] = ()

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
    while rest.left and choice.next_sticks is not None and not work.failed:
        further = choice.next_sticks(rest.left_bytes)
        if not further:
            break
        try:
            rest = work.write_round(further, {chunk.sha256 for chunk in rest.left})
        except UsageError as error:  # this stick was not touched, and another one may do
            words = f"expected {error.expected}, found {error.found}; {error.hint} ({error.code})"
            choice.announce(f"{error.subject} is not used: {words}")
    if rest.left or choice.parity_stick is None or work.failed:
        return work.result(rest.left)
    try:
        parity_bytes = work.write_parity_stick(choice.parity_stick)
    except UsageError as error:  # the other sticks are written all the same
        return work.result((), parity_error=error)
    return work.result((), parity_bytes)


@dataclass
class _Work:
    """One writing of a set, over all of its rounds."""

    media: OpenMedia
    choice: WriteChoice
    on_progress: OnProgress
    written: list[Written] = field(default_factory=list)
    failed: list[Unwritten] = field(default_factory=list)
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
        of = None if placed.left else len(self.shares) + more
        done = self._fill([self._filling(first + at, of, state, removed[at]) for at, state in enumerate(states)])
        if self.choice.next_sticks is not None and (placed.left or more):  # it is pulled before the next one comes
            for one in done:
                self.choice.announce(f"{one.path}: {one.removal.words}")
        return placed

    def result(
        self, left: tuple[Chunk, ...], parity_bytes: int = 0, parity_error: UsageError | None = None
    ) -> WrittenSet:
        """What was done; where not one stick was written, raise the gravest error."""
        if self.failed and not self.written:
            raise gravest(self.failed)
        return WrittenSet(tuple(self.written), left, parity_bytes, parity_error, tuple(self.failed))

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
        filling = self._filling(len(self.shares) - 1, len(self.shares), state, removed, plan)
        return plan.size_bytes if self._fill([filling]) else 0

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
            size = format_size(sum(chunk.size for chunk in missing))
            self.choice.announce(f"stick {number}, {state.layout.path}: {len(missing)} blobs to write, {size}")
        if placed.left:
            size = format_size(sum(chunk.size for chunk in placed.left))
            self.choice.announce(f"for further sticks: {len(placed.left)} blobs, {size}")
        elif has_parity:
            self.choice.announce(f"one stick more for the parity: {format_size(self._plan_parity().size_bytes)}")

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
            state.refuse_unlisted()
            return ()
        if ask is not None:
            state.refuse_unlisted(state.foreign)
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

    def _filling(
        self,
        at: int,
        of: int | None,
        state: StickState,
        removed: tuple[str, ...],
        parity: ParityStreams | None = None,
    ) -> Filling:
        number, small = self.choice.before + at + 1, self._small_files(state.layout)
        return Filling(number, state, self.shares[at], removed, small, self._card(at, of), parity)

    def _fill(self, fillings: Sequence[Filling]) -> list[Written]:
        """Fill sticks: those of different disks at the same time."""
        found: dict[int, Written | Unwritten] = {}
        lock = Lock()

        def show(filling: Filling, event: Progress) -> None:
            if len(fillings) > 1:
                task = event.task.replace(" the stick", "")  # the part names it
                with lock:
                    self.on_progress(replace(event, task=task, part=filling.short_name))
            elif not event.is_end:
                self.on_progress(event)

        def work(filling: Filling, pace: Pace) -> None:
            found[filling.number] = one = self._fill_one(filling, lambda event: show(filling, event), pace)
            if isinstance(one, Written):
                show(filling, Progress(one.removal.words, 1, 1, "steps", is_end=True))
            else:
                show(filling, Progress(f"failed: {one.error.code}", 0, 1, "steps", is_end=True))

        if len(fillings) > 1:
            for filling in fillings:
                show(filling, Progress("waiting", 0, 1, "steps"))
        run_lanes(lanes_of(fillings, [disks_of(one.state.layout.path) for one in fillings]), work)
        ended = [found[filling.number] for filling in fillings]
        done = [one for one in ended if isinstance(one, Written)]
        self.written.extend(done)
        self.failed.extend(one for one in ended if isinstance(one, Unwritten))
        return done

    def _fill_one(self, filling: Filling, on_progress: OnProgress, pace: Pace) -> Written | Unwritten:
        try:
            return fill(self.media, filling, on_progress, keep_mounted=self.choice.keep_mounted, pace=pace)
        except ApplianceError as error:
            return Unwritten(filling, error)
