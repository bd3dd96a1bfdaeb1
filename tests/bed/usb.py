"""Sticks as USB sees them: image files with a partition table and one file system, made without root or mounting.

Owns the images and what is copied into and out of them. FAT32 is filled here; an exFAT stick starts empty, because
nothing on this machine writes exFAT without mounting it: fill it inside a guest.

Rules:

- An image is sparse: its size on this machine is what was written to it.
- A file system is aligned to 1 MiB, as on sticks that are sold.
"""

from __future__ import annotations

import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.bed.abilities import BUILD_HINT, missing_commands
from tests.bed.tools import call

SECTOR_BYTES = 512
FIRST_SECTOR = 2048
OFFSET_BYTES = FIRST_SECTOR * SECTOR_BYTES
SMALLEST_BYTES = 64 << 20
"""FAT32 has at least 65 525 clusters."""
_PARTITION_TYPES = {"fat32": 0x0C, "exfat": 0x07}
_LABEL = "AIRGAP"
# mtools asks questions when the geometry of a disk looks old; nobody would answer.
_QUIET = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}


@dataclass(frozen=True)
class UsbStick:
    """One stick (`Stick`), plugged or in a drawer.

    Args:
        name: a word; the serial number that the guest sees holds it.
        image: the raw image.
        folder: what it was filled from.
        filesystem: `fat32` or `exfat`.
        is_read_only: whether its write protection is on.
        bytes_per_s: how fast it is, or 0: as fast as the bed can.
    """

    name: str
    image: Path
    folder: Path
    filesystem: str = "fat32"
    is_read_only: bool = False
    bytes_per_s: int = 0

    @property
    def serial(self) -> str:
        """The serial number that the guest sees."""
        return f"AIRGAP-{self.name}"


def missing() -> str | None:
    """Why this machine makes no FAT32 sticks, or None when it does."""
    lacks = missing_commands(("mcopy", "mkfs.vfat"))
    return f"needs {' '.join(lacks)}: {BUILD_HINT}" if lacks else None


def make_fat32(image: Path, size_bytes: int, contents: Path | None = None) -> None:
    """Make a FAT32 stick.

    Args:
        image: replaced.
        size_bytes: of the whole stick, at least 64 MiB.
        contents: folder whose files it holds, times kept.

    Raises:
        BedError: a tool failed: the contents do not fit, for one.
    """
    size_bytes = max(size_bytes, SMALLEST_BYTES)
    _partition(image, size_bytes, "fat32")
    blocks = (size_bytes - OFFSET_BYTES) // 1024
    call(["mkfs.vfat", "-F", "32", "-n", _LABEL, "--offset", str(FIRST_SECTOR), str(image), str(blocks)])
    inside = sorted(contents.iterdir()) if contents else []
    if inside:
        call(["mcopy", "-i", _volume(image), "-s", "-m", "-Q", *map(str, inside), "::"], env=_QUIET)


def make_exfat(image: Path, size_bytes: int) -> None:
    """Make an empty exFAT stick.

    Args:
        image: replaced.
        size_bytes: of the whole stick.
    """
    _partition(image, size_bytes, "exfat")
    volume = image.with_name(image.name + ".volume")
    try:
        _truncate(volume, size_bytes - OFFSET_BYTES)
        call(["mkfs.exfat", "-L", _LABEL, str(volume)])
        # mkfs.exfat cannot write at an offset.
        call(["dd", f"if={volume}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"])
    finally:
        volume.unlink(missing_ok=True)


def make_stick(name: str, image: Path, contents: Path, *, is_read_only: bool = False, bytes_per_s: int = 0) -> UsbStick:
    """Make a FAT32 stick that holds a folder and has half as much again for what is written to it.

    Args:
        name: see `UsbStick`.
        image: replaced.
        contents: folder.
        is_read_only: see `UsbStick`.
        bytes_per_s: see `UsbStick`.
    """
    held = sum(path.stat().st_size + (32 << 10) for path in contents.rglob("*"))
    make_fat32(image, held * 3 // 2 + SMALLEST_BYTES, contents)
    return UsbStick(name, image, contents, "fat32", is_read_only, bytes_per_s)


def copy_out(image: Path, destination: Path) -> None:
    """Copy everything out of a FAT32 stick that is not plugged in, over what is there.

    Args:
        image: of the stick.
        destination: an existing folder.
    """
    call(["mcopy", "-i", _volume(image), "-s", "-m", "-n", "-Q", "::*", str(destination)], env=_QUIET)


def _volume(image: Path) -> str:
    return f"{image}@@{OFFSET_BYTES}"


def _partition(image: Path, size_bytes: int, filesystem: str) -> None:
    image.unlink(missing_ok=True)
    _truncate(image, size_bytes)
    sectors = size_bytes // SECTOR_BYTES - FIRST_SECTOR
    # A partition table of one entry. Cylinders and heads mean nothing: FE FF FF says so.
    entry = struct.pack(
        "<B3sB3sII", 0, b"\xfe\xff\xff", _PARTITION_TYPES[filesystem], b"\xfe\xff\xff", FIRST_SECTOR, sectors
    )
    table = bytearray(SECTOR_BYTES)
    table[440:444] = secrets.token_bytes(4)
    table[446:462] = entry
    table[510:512] = b"\x55\xaa"
    with image.open("r+b") as file:
        file.write(table)


def _truncate(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)
