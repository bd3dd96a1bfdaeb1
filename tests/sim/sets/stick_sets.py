"""Several simulated sticks that together hold the blobs of some files, of which only a few are plugged at a time.

Owns how blobs are dealt out, damaged and doubled, and what a person does who is asked for the next stick. It stands for
what `bundles.stick.media` is on a real host, so that the copy can be tried with thousands of sets.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.oci.layout import blob_path
from signing.digest import Digest, sha256
from signing.errors import DamagedError, NextStickError
from tests.sim.sticks import SimStick

BLOB_FAULTS = ("flipped", "zeroed", "truncated", "lengthened", "unreadable")
"""What can be wrong with a blob that is there."""


@dataclass(frozen=True)
class SetFiles:
    """Files of a bundle, and the bytes of every chunk that they need."""

    files: tuple[File, ...]
    data: Mapping[Digest, bytes]

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Every chunk once, in the order in which files need them."""
        return tuple(dict.fromkeys(chunk for file in self.files for chunk in file.chunks))

    def bytes_of(self, file: File) -> bytes:
        """What a file must hold."""
        return b"".join(self.data[chunk.sha256] for chunk in file.chunks)


def make_files(contents: Sequence[bytes], unit: int) -> SetFiles:
    """Cut some contents into chunks of a unit.

    Args:
        contents: what each file holds.
        unit: bytes of every chunk but the last.
    """
    data: dict[Digest, bytes] = {}
    files = []
    for number, whole in enumerate(contents):
        parts = [whole[at : at + unit] for at in range(0, len(whole), unit)]
        data.update((sha256(part), part) for part in parts)
        chunks = tuple(Chunk(sha256(part), len(part)) for part in parts)
        files.append(File(f"models/m/{number}.gguf", "model", 0o644, len(whole), sha256(whole), chunks))
    return SetFiles(tuple(files), data)


@dataclass
class StickSet:
    """Sticks of one set, and a person who plugs them (`bundles.chunks.source.WaitingSource`).

    Args:
        sticks: in the order in which they are plugged.
        slots: how many of them are in at a time.
        asks: how often the person is ready to plug another one; None for a machine where nobody waits.
    """

    sticks: list[SimStick]
    slots: int
    asks: int | None = None
    asked: list[int] = field(default_factory=list)
    first: int = 0

    @property
    def plugged(self) -> list[SimStick]:
        """Those that are in."""
        return [self.sticks[(self.first + at) % len(self.sticks)] for at in range(min(self.slots, len(self.sticks)))]

    @property
    def opened(self) -> list[str]:
        """The names of all blobs that were opened, of all sticks together."""
        return [Path(path).name for stick in self.sticks for path in stick.opened]

    def forget(self) -> None:
        """Begin to count anew."""
        for stick in self.sticks:
            stick.opened.clear()

    def holds(self, chunk: Chunk) -> bool:
        """See `ChunkSource`."""
        return any(self._has(stick, chunk) for stick in self.plugged)

    def open_chunk(self, chunk: Chunk) -> int:
        """See `ChunkSource`: of a stick that is yanked at this moment, another one that has it is taken."""
        for stick in self.plugged:
            if self._has(stick, chunk):
                with suppress(DamagedError):
                    return stick.open(blob_path(chunk.sha256))
        raise DamagedError("blob.missing", blob_path(chunk.sha256))

    def name_medium(self, _chunk: Chunk) -> str:
        """None of them has a name."""
        return ""

    def wait_for(self, wanted: Sequence[Chunk]) -> None:
        """See `WaitingSource`: the person plugs one stick after the other, as long as there are new ones."""
        for _ in self.sticks:
            if self.asks is not None and len(self.asked) >= self.asks:
                break
            self.first = (self.first + 1) % len(self.sticks)
            self.asked.append(self.first)
            if any(self.holds(chunk) for chunk in wanted):
                return
        raise NextStickError("media.next", "stick", expected=f"{len(wanted)} chunks", found="no stick that has them")

    @staticmethod
    def _has(stick: SimStick, chunk: Chunk) -> bool:
        return not stick.is_yanked and (stick.root / blob_path(chunk.sha256)).exists()


def deal(folder: Path, of: SetFiles, holders: Mapping[Digest, Collection[int]], count: int) -> list[SimStick]:
    """Make sticks and put each blob on those that are to hold it.

    Args:
        folder: takes one folder for each stick.
        of: whose blobs they are.
        holders: numbers of sticks by blob; a blob without any is missing.
        count: how many sticks there are.
    """
    sticks = []
    for number in range(count):
        root = folder / f"stick-{number}"
        (root / "blobs" / "sha256").mkdir(parents=True)
        sticks.append(SimStick(root))
    for digest, numbers in holders.items():
        for number in numbers:
            (sticks[number].root / blob_path(digest)).write_bytes(of.data[digest])
    return sticks


def damage(stick: SimStick, chunk: Chunk, fault: str) -> None:
    """Do one of `BLOB_FAULTS` to a blob of a stick."""
    path = blob_path(chunk.sha256)
    if fault == "flipped":
        stick.flip_bit(path, 8 * chunk.size - 1)
    elif fault == "zeroed":
        stick.give(path, bytes(chunk.size))
    elif fault == "truncated":
        stick.truncate(path, chunk.size - 1)
    elif fault == "lengthened":
        stick.give(path, (stick.root / path).read_bytes() + b"E")
    else:
        stick.fail_to_read(path)


def right_chunks(of: SetFiles, folder: Path) -> set[Digest]:
    """The chunks that a folder holds already in each of the files that need them, finished or begun."""
    wrong: set[Digest] = set()
    right: set[Digest] = set()
    for file in of.files:
        path = folder / Path(file.path).name
        begun = path.with_name(f"{path.name}.partial")
        data = next((one.read_bytes() for one in (path, begun) if one.exists()), b"")
        at = 0
        for chunk in file.chunks:
            (right if sha256(data[at : at + chunk.size]) == chunk.sha256 else wrong).add(chunk.sha256)
            at += chunk.size
    return right - wrong


def leftovers(folder: Path) -> list[str]:
    """Names in a folder that belong to no finished file."""
    return sorted(name for name in os.listdir(folder) if name.endswith(".partial"))
