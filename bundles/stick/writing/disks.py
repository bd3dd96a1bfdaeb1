"""Which disks a folder lies on: two sticks can be written at the same time where they share none.

Owns the look at the kernel's tree of block devices. It reads names alone, and needs no rights.

Source: Linux, Documentation/ABI/stable/sysfs-block, and sysfs-devices: a partition's folder lies in that of its disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bundles.stick.mounts import BLOCK_DEVICES, mount_of

T = TypeVar("T")
_MAX_DEPTH = 8
"""Devices that lie on one another, such as an encrypted volume on a partition: far fewer in fact."""


def disks_of(folder: Path, block_devices: Path = BLOCK_DEVICES) -> frozenset[str]:
    """Find the disks of a folder.

    Args:
        folder: of a stick.
        block_devices: the kernel's folder of block devices.

    Returns:
        A name for each disk below its file system; where the kernel shows none, the name of the file system itself.
    """
    try:
        number = os.stat(folder).st_dev
    except OSError:  # who writes there finds that it is gone
        return frozenset((f"folder {folder}",))
    if os.major(number) == 0 and (mount := mount_of(folder)) is not None and mount.source.startswith("/dev/"):
        # btrfs and FUSE show a number of their own; what was mounted is a block device.
        with suppress(OSError):
            number = os.stat(mount.source).st_rdev or number
    node = block_devices / f"{os.major(number)}:{os.minor(number)}"
    return _disks(node.resolve(), _MAX_DEPTH) if node.is_dir() else frozenset((f"file system {number}",))


def lanes_of(things: Sequence[T], disks: Sequence[Collection[str]]) -> list[list[T]]:
    """Put things that share a disk into one lane, in their order; different lanes share none.

    Args:
        things: such as sticks.
        disks: of each thing.
    """
    lanes: list[tuple[list[int], set[str]]] = []
    for at, own in enumerate(disks):
        near = [lane for lane in lanes if lane[1].intersection(own)]
        members = sorted([at, *(one for lane in near for one in lane[0])])
        lanes = [lane for lane in lanes if lane not in near]
        lanes.append((members, set(own).union(*(lane[1] for lane in near))))
    return [[things[at] for at in members] for members, _ in sorted(lanes, key=lambda lane: lane[0][0])]


def _disks(node: Path, depth: int) -> frozenset[str]:
    disk = node.parent if (node / "partition").exists() else node
    try:
        below = [(disk / "slaves" / name).resolve() for name in os.listdir(disk / "slaves")] if depth else []
    except OSError:
        below = []
    return frozenset(name for one in below for name in _disks(one, depth - 1)) or frozenset((str(disk),))
