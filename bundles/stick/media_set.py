"""Where chunks are read: the media that are here, and the wait for further ones (docs/architecture.md, Sticks).

Owns the reading of chunks from several media that can be changed meanwhile. It never writes to a medium, and deletes
nothing on it. What a chunk holds is not judged here: who reads it hashes it.

Rules (threats T16, T106, T107):
- a damaged copy of a chunk is passed over where another medium or the parity has it, and there is a notice;
- a medium that arrives is judged like the first, before a blob of it is read;
- what a medium states in `STICK.json` chooses words, and nothing else;
- nothing on a medium stays open between two reads, so that it can be unmounted while somebody waits;
- a pulled stick is noticed by its device: the file system of such a stick may show an empty folder without an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Callable, Optional

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.chunks.source import FindPlaces
from bundles.oci.layout import BLOB_FOLDER, LAYOUT_FILE, Layout
from bundles.stick.card import StickCard, read_card
from bundles.stick.missing import damaged_copies, lost, next_stick, request, unplugged
from bundles.stick.mounts import Mount, MountWatch, mount_of
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError

if TYPE_CHECKING:
    from bundles.parity.source import ParitySource

Admit = Callable[[Path], Optional[Layout]]
"""Judges a medium that has arrived; None where it holds nothing that is wanted."""


@dataclass(frozen=True)
class Waiting:
    """How a reader waits for media.

    Args:
        announce: gets one line for people: what is missing, and what to do.
        is_filling: whether the named folders may be filling still, as the spool of a data diode does: files that are
            not there yet are waited for, and names that end in `.part` are passed over.
        watch: of the mounts of this machine.
    """

    announce: Callable[[str], None]
    is_filling: bool = False
    watch: MountWatch = field(default_factory=MountWatch)


@dataclass
class _Present:
    """A medium that is here: the names of its blobs when it was looked at, what it states, and its device.

    `names` are those of the blobs that were seen, `stated` those that it states to have, `damaged` those that are not
    read from it any further.
    """

    layout: Layout
    names: frozenset[str]
    changed_ns: int
    card: StickCard | None
    stated: frozenset[str]
    mount: Mount | None
    damaged: set[Digest] = field(default_factory=set)

    @property
    def is_gone(self) -> bool:
        return self.mount is not None and self.mount.is_gone

    def has(self, chunk: Chunk) -> bool:
        if chunk.sha256 not in self.names or chunk.sha256 in self.damaged or self.is_gone:
            return False
        return not self.layout.is_filling or self._is_whole(chunk)

    def _is_whole(self, chunk: Chunk) -> bool:
        # In a spool a blob may have its name before it has all of its bytes.
        try:
            descriptor = self.layout.open_chunk(chunk)
        except ApplianceError:
            return False
        try:
            return os.fstat(descriptor).st_size >= chunk.size
        finally:
            os.close(descriptor)


class MediaSet:
    """The chunks of several media: a `bundles.chunks.source.WaitingSource`.

    Args:
        layouts: untrusted, each judged before; in the order in which a chunk is looked for.
        bundles: verified; those whose chunks are wanted: for the words of what is missing.
        waiting: how to wait for further media; None where nobody waits.
        admit: judges a medium that arrives; without it none is taken.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        bundles: Sequence[Bundle] = (),
        waiting: Waiting | None = None,
        admit: Admit = lambda _: None,
    ) -> None:
        self.bundles = tuple(bundles)
        self._named = tuple(layout.path for layout in layouts)
        self._waiting, self._admit = waiting, admit
        self._present = [self._look(layout) for layout in layouts]
        self._cards = [one.card for one in self._present if one.card is not None]
        self._pulled: dict[Path, Mount | None] = {}
        self._announced: set[str] = set()
        self._opened: dict[Digest, _Present] = {}
        self._passed_over: dict[Digest, DamagedError] = {}
        self._notices: dict[Path, list[tuple[Chunk, str]]] = {}
        self._lock = Lock()
        self._find_places: FindPlaces = lambda _: ()
        self._parity_source: ParitySource | None = None

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The media that are here."""
        return tuple(one.layout for one in self._present)

    def holders(self, chunk: Chunk) -> tuple[Layout, ...]:
        """The media here on which a blob of this name lies."""
        return tuple(one.layout for one in tuple(self._present) if one.has(chunk))

    def name_medium(self, chunk: Chunk) -> str:
        """The medium that a chunk is read from, for an error; empty where there is only one."""
        holders = self.holders(chunk)
        return str(holders[0].path) if holders and len(self._present) > 1 else ""

    def pass_over(self, chunk: Chunk, error: DamagedError) -> bool:
        """Read a chunk from another medium or the parity from now on: the copy that was opened last is damaged.

        Args:
            chunk: verified.
            error: what is wrong with that copy.

        Returns:
            False where nothing else here has it: then nothing was passed over. A medium that was pulled out is not
            damaged, and is given no notice.
        """
        one = self._opened.get(chunk.sha256)
        if one is None:
            return False
        if self._drop(one):
            return self.holds(chunk)
        one.damaged.add(chunk.sha256)
        if not self.holds(chunk):
            one.damaged.discard(chunk.sha256)
            return False
        holders = self.holders(chunk)
        error.subject = f"{one.layout.path}: {error.subject}"
        with self._lock:
            self._passed_over.setdefault(chunk.sha256, error)
            source = str(holders[0].path) if holders else "the parity"
            self._notices.setdefault(one.layout.path, []).append((chunk, source))
        return True

    @property
    def notices(self) -> tuple[str, ...]:
        """One line for each medium with damaged copies that were passed over: which, and where they came from."""
        return tuple(damaged_copies(path, found) for path, found in self._notices.items())

    def use_places(self, find_places: FindPlaces) -> None:
        """Take where this host holds chunks: with a parity, others are rebuilt from them."""
        self._find_places = find_places

    def holds(self, chunk: Chunk) -> bool:
        """Whether a blob can be opened or rebuilt here and now; its bytes are judged by who reads them."""
        return self.lies_here(chunk) or self._parity.holds(chunk)

    def lies_here(self, chunk: Chunk) -> bool:
        """Whether a blob of this name lies on a medium that is here."""
        return any(one.has(chunk) for one in tuple(self._present))

    def open_chunk(self, chunk: Chunk) -> int:
        """Open a chunk's blob on the first medium that has it; the caller closes it and hashes what it reads.

        A blob that lies on none of them is rebuilt, where their parity allows it.

        Raises:
            NextStickError: it is on none of them, or its medium was pulled out.
            DamagedError: it should be on one of them and is not, or cannot be opened.
            NotTrustedError: it is no regular file.
        """
        if not self.lies_here(chunk) and self._parity.holds(chunk):
            self._opened.pop(chunk.sha256, None)
            return self._parity.open_chunk(chunk)
        return self.open_lying(chunk)

    def open_lying(self, chunk: Chunk) -> int:
        """Open a blob that lies on a medium; errors as for `open_chunk`."""
        for one in tuple(self._present):
            if not one.has(chunk):
                continue
            self._opened[chunk.sha256] = one
            try:
                return one.layout.open_chunk(chunk)
            except DamagedError:
                if not self._drop(one):
                    raise
        raise self.absent((chunk,))

    @property
    def _parity(self) -> ParitySource:
        """Asked for blobs that lie on no medium here, and loaded with the first: most checks ask for none."""
        from bundles.parity.source import ParitySource

        with self._lock:
            if self._parity_source is None:
                self._parity_source = ParitySource(lambda: self.layouts, _OnMedia(self))
            self._parity_source.find_places = self._find_places
            return self._parity_source

    def missing(self, bundle: Bundle) -> tuple[Chunk, ...]:
        """The blobs of a bundle that no medium here holds, in the order of the bundle."""
        return tuple(chunk for chunk in bundle.blobs if not self.holds(chunk))

    def is_elsewhere(self, chunk: Chunk) -> bool:
        """Whether a blob that is not here should be on another medium.

        False where a medium here states that it has it, or none states that it is part of a set: the blob is then lost.
        """
        self._notice_pulled()
        if self._pulled or (self._waiting is not None and self._waiting.is_filling):
            return True
        return bool(self._cards) and not any(chunk.sha256 in one.stated for one in self._present)

    def absent(self, wanted: Sequence[Chunk]) -> ApplianceError:
        """The error for blobs that are not here: pulled out or on another stick (5), or lost or damaged (3).

        Args:
            wanted: at least one.
        """
        self._notice_pulled()
        if self._pulled:
            return unplugged(tuple(self._pulled))
        for chunk in wanted:
            if chunk.sha256 in self._passed_over:
                return self._passed_over[chunk.sha256]
            if not self.is_elsewhere(chunk):
                return lost(chunk, self.bundles)
        return next_stick(wanted, self.bundles, self._cards)

    def wait_for(self, wanted: Sequence[Chunk]) -> None:
        """Wait until at least one of these chunks can be opened; sleeps in the kernel.

        Args:
            wanted: at least one.

        Raises:
            NextStickError: nobody waits, and they are on a stick that is not here.
            DamagedError: they should be here and are not.
            NotTrustedError: a medium that arrived is not trusted.
        """
        waiting = self._waiting
        if waiting is None:
            self._notice_pulled()
        else:
            self._refresh(is_event=False)
        if any(map(self.holds, wanted)):
            return
        error = self.absent(wanted)
        if waiting is None or (isinstance(error, DamagedError) and not waiting.is_filling):
            raise error
        waiting.announce(request(wanted, self.bundles, self._cards, tuple(self._pulled), waiting.is_filling))
        while not any(map(self.holds, wanted)):
            self._refresh(is_event=waiting.watch.wait())

    def _look(self, layout: Layout) -> _Present:
        mount, card, changed = mount_of(layout.path), read_card(layout), _changed_ns(layout)
        names = frozenset(layout.medium.list(BLOB_FOLDER))
        stated = _stated(card, self.bundles) if card is not None else frozenset()
        return _Present(layout, names, changed, card, stated, mount)

    def _refresh(self, *, is_event: bool) -> None:
        """Look at devices and folders again; where mounts have changed, at everything that is mounted."""
        for path, before in tuple(self._pulled.items()):
            if before is not None and mount_of(path) != before:
                self._pulled[path] = None  # the next mount there is another one, also with the same number
        for one in tuple(self._present):
            if self._drop(one):
                continue
            if one.layout.is_filling and not is_event:
                self._present[self._present.index(one)] = self._look(one.layout)
            elif is_event or _changed_ns(one.layout) != one.changed_ns:
                self._present.remove(one)  # perhaps another medium lies at this path: it is judged again below
        paths = {layout.path for layout in self.layouts}
        arrived = self._waiting.watch.arrived() if self._waiting is not None else ()
        for path in dict.fromkeys((*self._named, *arrived)):
            if path not in paths and not self._is_stale(path) and os.path.lexists(path / LAYOUT_FILE):
                self._take(path)

    def _is_stale(self, path: Path) -> bool:
        # A pulled stick stays mounted, and its cached names can be seen still.
        before = self._pulled.get(path)
        return before is not None and mount_of(path) == before

    def _take(self, path: Path) -> None:
        try:
            layout = self._admit(path)
        except DamagedError as error:
            if self._waiting is None:
                raise
            self._announce_once(f"not usable yet: {path}: {error}")
            return
        if layout is None:
            return
        with self._lock:
            present = self._look(layout)
            self._present.append(present)
            self._pulled.pop(path, None)
            if present.card is not None and present.card not in self._cards:
                self._cards.append(present.card)

    def _announce_once(self, text: str) -> None:
        if self._waiting is not None and text not in self._announced:
            self._announced.add(text)
            self._waiting.announce(text)

    def _notice_pulled(self) -> None:
        for one in tuple(self._present):
            self._drop(one)

    def _drop(self, one: _Present) -> bool:
        """Take a medium away whose device is gone."""
        if not one.is_gone:
            return False
        with self._lock:
            if one in self._present:
                self._present.remove(one)
                self._pulled[one.layout.path] = one.mount
        return True


class _OnMedia:
    """The blobs that lie on the media of a set: what a parity is joined with."""

    def __init__(self, media: MediaSet) -> None:
        self.holds = media.lies_here
        self.open_chunk = media.open_lying


def _changed_ns(layout: Layout) -> int:
    try:
        return os.stat(layout.path / BLOB_FOLDER).st_mtime_ns
    except OSError:
        return 0


def _stated(card: StickCard, bundles: Sequence[Bundle]) -> frozenset[str]:
    """The digests of the blobs that a medium states to have."""
    return frozenset(
        chunk.sha256
        for bundle in bundles
        for number, chunk in enumerate(bundle.blobs, 1)
        if card.number in card.sticks_with(bundle.manifest, number)
    )
