"""Decides which stick of a set gets which blobs.

Owns the order in which blobs are worth carrying, and the limits of file systems. It computes with sizes alone, and
opens nothing.

Rules:
- every stick gets what a reader needs to judge it: metadata, `BOOT/`, each manifest and each `contents.json`;
- then come the files of the bootstrap set, then small files before large ones, then the smallest model first;
- a blob that lies on one of the sticks stays there; nothing is written twice;
- a stick is filled before the next one is begun, so that each holds few runs of blobs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from signing.digest import Digest

FAT_MAX_BLOBS = 10_000
"""A folder of FAT32 has 65 536 entries, and a name of 64 characters takes 6 of them."""
FAT_MAX_FILE_BYTES = (4 << 30) - 1
FAT_TYPES = ("vfat", "msdos")
NAME_BYTES = 256
"""What the name of a blob takes in its folder, at most, on the file systems that sticks have."""
_MODELS = ("model", "adapter")


@dataclass(frozen=True)
class Room:
    """What a stick has room for.

    Args:
        free_bytes: for new files.
        held: the blobs that lie there.
        block_bytes: what every file is rounded up to.
        max_blobs: how many blobs its file system can hold; None for any number.
        max_file_bytes: the longest file of its file system; None for any length.
    """

    free_bytes: int
    held: Collection[Digest] = frozenset()
    block_bytes: int = 4096
    max_blobs: int | None = None
    max_file_bytes: int | None = None

    def cost(self, size: int) -> int:
        """What a file of so many bytes takes of the free room."""
        return -(-size // self.block_bytes) * self.block_bytes + NAME_BYTES


def room_of(system: str, free_bytes: int, block_bytes: int, held: Collection[Digest]) -> Room:
    """The room of a stick whose file system is known by its type.

    Args:
        system: as the kernel names the type: `vfat`, `exfat`, `ext4`.
        free_bytes, block_bytes, held: of `Room`.
    """
    is_fat = system in FAT_TYPES
    # The lists of free blocks and of names grow, too.
    free_bytes = max(0, free_bytes - (1 << 20) - free_bytes // 500)
    return Room(
        free_bytes, held, block_bytes, FAT_MAX_BLOBS if is_fat else None, FAT_MAX_FILE_BYTES if is_fat else None
    )


@dataclass(frozen=True)
class Placement:
    """Which stick holds which blobs in the end.

    Args:
        shares: for each room, the blobs that it is to hold, those that it has already among them; None where it has no
            room even for what every stick needs.
        left: wanted blobs that fit on none of them, in the order of their worth.
    """

    shares: tuple[tuple[Chunk, ...] | None, ...]
    left: tuple[Chunk, ...]

    @property
    def left_bytes(self) -> int:
        """How much has yet to be carried by further sticks."""
        return sum(chunk.size for chunk in self.left)


def order_by_worth(bundles: Sequence[Bundle]) -> list[Chunk]:
    """The chunks of some bundles, each once, those first that are worth most to have."""
    files = [file for bundle in bundles for file in bundle.contents.files]
    return list(dict.fromkeys(chunk for file in sorted(files, key=_worth) for chunk in file.chunks))


def common_blobs(bundles: Sequence[Bundle]) -> list[Chunk]:
    """The blobs that lie on every stick: manifests and `contents.json`."""
    return [chunk for bundle in bundles for chunk in (Chunk(bundle.manifest, bundle.manifest_size), bundle.config)]


def place(
    bundles: Sequence[Bundle],
    rooms: Sequence[Room],
    wanted: Collection[Digest] | None = None,
    small_files: Collection[int] = (),
) -> Placement:
    """Place the blobs of some bundles on sticks.

    Args:
        bundles: verified.
        rooms: in the order in which the sticks are filled.
        wanted: the chunks that are to be carried; None for all.
        small_files: sizes in bytes of the files beside the blobs that every stick gets.
    """
    common = common_blobs(bundles)
    ordered = order_by_worth(bundles)
    # A byte string can be both, in a bundle that carries another one's manifest.
    everywhere = {chunk.sha256 for chunk in common}
    chunks = [chunk for chunk in ordered if chunk.sha256 not in everywhere]
    filling = [_Filling(room, common, small_files) for room in rooms]
    held = {digest for one in filling if one.is_usable for digest in one.room.held}
    for one in filling:
        one.share.extend(chunk for chunk in chunks if chunk.sha256 in one.room.held)
    open_ones = [one for one in filling if one.is_usable]
    left = []
    for chunk in chunks:
        if chunk.sha256 in held or (wanted is not None and chunk.sha256 not in wanted):
            continue
        while open_ones and not open_ones[0].fits(chunk):
            open_ones.pop(0)
        if open_ones:
            open_ones[0].add(chunk)
        else:
            left.append(chunk)
    return Placement(tuple(tuple(one.share) if one.is_usable else None for one in filling), tuple(left))


@dataclass
class _Filling:
    """A stick while blobs are placed on it."""

    room: Room
    common: Sequence[Chunk]
    small_files: Collection[int]
    share: list[Chunk] = field(default_factory=list)
    free_bytes: int = 0
    blobs: int = 0
    is_usable: bool = True

    def __post_init__(self) -> None:
        self.free_bytes = self.room.free_bytes - sum(map(self.room.cost, self.small_files))
        self.blobs = len(self.room.held)
        self.share.extend(dict.fromkeys(self.common))
        for chunk in self.share:
            if chunk.sha256 not in self.room.held:
                self.is_usable = self.is_usable and self.fits(chunk)
                self._take(chunk)

    def fits(self, chunk: Chunk) -> bool:
        room = self.room
        if room.max_blobs is not None and self.blobs >= room.max_blobs:
            return False
        if room.max_file_bytes is not None and chunk.size > room.max_file_bytes:
            return False
        return room.cost(chunk.size) <= self.free_bytes

    def add(self, chunk: Chunk) -> None:
        self.share.append(chunk)
        self._take(chunk)

    def _take(self, chunk: Chunk) -> None:
        self.free_bytes -= self.room.cost(chunk.size)
        self.blobs += 1


def _worth(file: File) -> tuple[bool, bool, int, str]:
    return not file.bootstrap, file.kind in _MODELS, file.size, file.path
