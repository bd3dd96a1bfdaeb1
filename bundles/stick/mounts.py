"""What is mounted on this machine, and the wait for a change of it (docs/architecture.md, Sticks).

Owns the reading of `/proc/self/mountinfo` and of `/sys/dev/block`. It mounts and opens nothing, and needs no rights.

Rules:
- the kernel reports mounts through `poll`; a stick that is pulled out is no such event, so its device is looked at;
- a wait sleeps in the kernel, one second at most; it uses no processor time in between;
- where the kernel shows no devices (a container), a medium counts as present.

Source: proc(5), section /proc/pid/mountinfo.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
BLOCK_DEVICES = Path("/sys/dev/block")
LOOK_EVERY_S = 1.0
"""How long a wait sleeps at most: what is no event, such as a pulled stick, is noticed after this time."""
_LINUX_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "squashfs", "tmpfs")
MEDIUM_TYPES = frozenset((*_LINUX_TYPES, "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "udf", "iso9660"))
"""File systems on which a medium is looked for by itself. A network's could block; such a path must be named."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo.

    Args:
        number: the kernel's id of this mount.
        device: `MAJ:MIN` of the block device; `0:N` where there is none.
        point: where it is mounted.
        type: of the file system: `vfat`.
        source: what was mounted: `/dev/sdb1`.
        is_read_only: by the mount's options or those of the file system.
    """

    number: int
    device: str
    point: Path
    type: str
    source: str
    is_read_only: bool

    @property
    def is_gone(self) -> bool:
        """Whether its block device was pulled out: the kernel lists devices, and this one no longer."""
        if self.device.startswith("0:") or (BLOCK_DEVICES / self.device).is_dir():
            return False
        try:
            return next(BLOCK_DEVICES.iterdir(), None) is not None
        except OSError:
            return False


def read_mounts(mountinfo: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Read what is mounted, in the order in which it was mounted; nothing where the kernel does not state it."""
    try:
        text = mountinfo.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ()
    return tuple(found for line in text.splitlines() if (found := _parse(line)) is not None)


def mount_of(path: Path, mounts: Sequence[Mount] | None = None) -> Mount | None:
    """Find the mount that a path lies on: the innermost, of several at one place the last.

    Args:
        path: need not exist.
        mounts: of `read_mounts`; read where they are not given.
    """
    real = Path(os.path.realpath(path))
    above = {real, *real.parents}
    best: Mount | None = None
    for mount in read_mounts() if mounts is None else mounts:
        if mount.point in above and (best is None or len(mount.point.parts) >= len(best.point.parts)):
            best = mount
    return best


class MountWatch:
    """Waits until something is mounted or unmounted, or a second has passed.

    Args:
        mountinfo: the kernel's file; a change that happens after this object was made is reported by the next `wait`.
    """

    def __init__(self, mountinfo: Path = MOUNTINFO) -> None:
        self._mountinfo = mountinfo
        self._known = {(mount.number, mount.point) for mount in read_mounts(mountinfo)}
        self._poll = select.poll()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(mountinfo, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # without this file of the kernel, the look once a second must do
        self._poll.register(self._descriptor, select.POLLERR | select.POLLPRI)

    def wait(self, timeout_s: float = LOOK_EVERY_S) -> bool:
        """Sleep until mounts change, at most so long.

        Returns:
            Whether mounts have changed since the last call.
        """
        return bool(self._poll.poll(max(1, int(timeout_s * 1000))))

    def arrived(self) -> tuple[Path, ...]:
        """Where something was mounted since this watch began: the file systems on which media are looked for."""
        mounts = read_mounts(self._mountinfo)
        # The kernel gives the number of a mount that is gone to the next one: a stick that is plugged in anew has it.
        self._known &= {(mount.number, mount.point) for mount in mounts}
        new = [mount for mount in mounts if (mount.number, mount.point) not in self._known]
        return tuple(dict.fromkeys(mount.point for mount in new if mount.type in MEDIUM_TYPES))

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            self._poll.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def _parse(line: str) -> Mount | None:
    left, dash, right = line.partition(" - ")
    fields, more = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(more) < 3 or not fields[0].isdigit():
        return None
    options = {*fields[5].split(","), *more[2].split(",")}
    return Mount(
        int(fields[0]), fields[2], Path(_plain(fields[4])), more[0], _plain(more[1]), is_read_only="ro" in options
    )


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
