"""Fills one stick with what was placed on it, and proves that it arrived.

Owns the order of the writing of one stick. Several sticks are filled at the same time by calls in several threads.

Rules:
- the small files come after the blobs, and the index last;
- afterwards every file is read back from the medium, past the cache, and what differs is written once more;
- the stick passes the same check of names, metadata and `BOOT/` as `verify` makes;
- before each step the stick must be the one that was looked at; at the end it is made safe to pull.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundles.chunks.check import Checked
from bundles.chunks.chunk import Chunk
from bundles.medium import explain_write
from bundles.medium_check import CheckedMedium, check_medium
from bundles.oci.layout import INDEX_FILE, PARITY, STICK_FILE, Layout, blob_path
from bundles.parity.streams import ParityStreams, write_parity
from bundles.progress import OnProgress, ignore
from bundles.stick.media import OpenMedia
from bundles.stick.writing.blob_batches import write_blobs
from bundles.stick.writing.pace import ALONE, Pace
from bundles.stick.writing.read_back import make_durable, read_back
from bundles.stick.writing.safe_removal import Removal, make_removable
from bundles.stick.writing.small_files import older_files
from bundles.stick.writing.stick_state import StickState
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, worst


@dataclass(frozen=True)
class Filling:
    """What is decided about one stick before anything is written.

    Args:
        number: of the stick in its set, from 1.
        state: the stick as it was found.
        share: the blobs that it is to hold, those that it has already among them.
        removed: paths that are removed first, after a yes.
        small: the files beside the blobs, by path, in the order in which they are written: the index is the last.
        card: what the stick states about itself.
        parity: the parity that it gets; None for a stick of blobs alone.
    """

    number: int
    state: StickState
    share: tuple[Chunk, ...]
    removed: tuple[str, ...]
    small: Mapping[str, bytes]
    card: bytes
    parity: ParityStreams | None = None

    @property
    def name(self) -> str:
        """The stick, for people."""
        return f"stick {self.number}, {self.state.layout.path}"

    @property
    def short_name(self) -> str:
        """The stick, where a line has little room: `name` was shown before."""
        return f"stick {self.number}, {self.state.layout.path.name or self.state.layout.path}"


@dataclass(frozen=True)
class Written:
    """What the writing of one stick did.

    Args:
        filling: what was decided about it.
        blobs, size_bytes: blobs that had to be written, and their bytes.
        checked: what was read back.
        beside: what lies beside the blobs.
        is_proven: whether the kernel counted every byte as read from the device.
        removal: whether it may be pulled out.
    """

    filling: Filling
    blobs: int
    size_bytes: int
    checked: Checked
    beside: CheckedMedium
    is_proven: bool
    removal: Removal

    @property
    def path(self) -> Path:
        """The folder of the stick."""
        return self.filling.state.layout.path


@dataclass(frozen=True)
class Unwritten:
    """A stick that could not be filled.

    Args:
        filling: what was decided about it; some of it may lie there.
        error: why.
    """

    filling: Filling
    error: ApplianceError

    @property
    def path(self) -> Path:
        """The folder of the stick."""
        return self.filling.state.layout.path


def gravest(failed: Sequence[Unwritten]) -> ApplianceError:
    """Join the errors of sticks that failed, at least one; the gravest decides the exit code."""
    return worst([error for one in failed for error in (one.error, *one.error.others)])


def fill(
    media: OpenMedia, filling: Filling, on_progress: OnProgress, *, keep_mounted: bool, pace: Pace = ALONE
) -> Written:
    """Fill one stick.

    Args:
        media: the source, checked.
        filling: of this stick.
        on_progress: called with bytes written, then with bytes read back.
        keep_mounted: leave it mounted.
        pace: what this stick may use, where others are filled at the same time.

    Raises:
        NextStickError: it was pulled out (code `stick.unplugged`).
        ApplianceError: as for `bundles.stick.writing.writer.write_sticks`.
    """
    work = _StickWork(media, filling, on_progress, pace)
    try:
        return work.run(keep_mounted)
    except BrokenPipeError:  # nobody reads the progress any more: this is no fault of the stick
        raise
    except (ApplianceError, OSError) as error:
        filling.state.require_there(error)
        if isinstance(error, OSError):
            raise explain_write(error, filling.state.layout.path, 0) from error
        raise


@dataclass(frozen=True)
class _StickWork:
    """The writing of one stick."""

    media: OpenMedia
    filling: Filling
    on_progress: OnProgress
    pace: Pace

    @property
    def stick(self) -> Layout:
        return self.filling.state.layout

    def run(self, keep_mounted: bool) -> Written:
        filling, state = self.filling, self.filling.state
        state.require_there()
        self._remove()
        missing = [chunk for chunk in filling.share if chunk.sha256 not in state.held]
        write_blobs(self.media.source, self.stick, missing, self.on_progress, self.pace)
        pieces = self._write_parity(self.on_progress)
        small = {STICK_FILE: filling.card, **filling.small}
        for path, data in small.items():
            self._require_there()
            self.stick.medium.write(path, data)
        for path in older_files(self.stick, small):
            self.stick.medium.remove(path)
        blobs = {blob_path(chunk.sha256): chunk for chunk in filling.share}
        files = blobs | {path: Chunk(sha256(data), len(data)) for path, data in small.items()}
        back = read_back(self.stick, files | pieces, self.on_progress, self.pace)
        self._require_there()
        if back.differing:
            self._mend(back.differing, small)
            counted = set(missing)
            missing += [chunk for path, chunk in back.differing.items() if path in blobs and chunk not in counted]
        beside = check_medium(self.stick, self.media.bundles)
        checked = Checked(self._files_in(filling.share), len(filling.share), sum(chunk.size for chunk in filling.share))
        written = sum(chunk.size for chunk in missing)
        self._require_there()
        removal = make_removable(self.stick.path, keep_mounted=keep_mounted)
        return Written(filling, len(missing), written, checked, beside, back.is_proven, removal)

    def _require_there(self) -> None:
        self.pace.require_going()
        self.filling.state.require_there()

    def _remove(self) -> None:
        # Without its index the old bundle does not look whole while it is taken away.
        paths: Sequence[str] = self.filling.removed
        for path in (INDEX_FILE, *paths) if paths else ():
            try:
                self.stick.medium.remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise explain_write(error, self.stick.path / path, 0) from None
        if paths:
            make_durable(self.stick.path)

    def _write_parity(self, on_progress: OnProgress) -> dict[str, Chunk]:
        parity = self.filling.parity
        return write_parity(parity, self.media.source.open_chunk, self.stick, on_progress) if parity else {}

    def _mend(self, differing: Mapping[str, Chunk], small: Mapping[str, bytes]) -> None:
        """Write once more what the stick did not give back; where it then differs still, it is worth nothing."""
        blobs = [chunk for path, chunk in differing.items() if path == blob_path(chunk.sha256)]
        write_blobs(self.media.source, self.stick, blobs, ignore, self.pace)
        if any(path.startswith(f"{PARITY}/") for path in differing):
            self._write_parity(ignore)
        for path in differing:
            if path in small:
                self.stick.medium.write(path, small[path])
        if read_back(self.stick, differing, ignore, self.pace).differing:
            raise DamagedError(
                "stick.does-not-keep",
                str(self.stick.path),
                expected="the bytes that were written to it",
                found="other bytes when read back",
                hint="this medium is worn out or a fake; use another one (the programs f3write and f3read test it)",
            )

    def _files_in(self, share: Collection[Chunk]) -> int:
        there = {chunk.sha256 for chunk in share}
        files = [file for found in self.media.bundles for file in found.value.contents.files]
        return sum(all(chunk.sha256 in there for chunk in file.chunks) for file in files)
