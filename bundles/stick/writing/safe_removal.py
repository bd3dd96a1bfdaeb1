"""Makes a written stick safe to pull out, or finds the command that does.

Owns the unmounting. A stick that is pulled while it is mounted for writing is marked as not closed properly, and may
lose names, even after `syncfs`. So only a stick that is unmounted, or mounted read-only everywhere, is safe.

Rules:
- only the folder that is itself the mount point of a block device is unmounted, and only by root;
- a file system that something else has open is mounted read-only instead; where that fails, too, it stays as it is;
- the kernel's list of mounts is read again afterwards: it decides, and not that a call succeeded;
- FAT and exFAT keep a mark of an earlier pull, also when they are unmounted properly. Root can read it then.
"""

from __future__ import annotations

import ctypes
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundles.stick.mounts import Mount, mount_of, read_mounts

UNMOUNTED, READ_ONLY, MOUNTED, NO_MOUNT = "unmounted", "read-only", "mounted", "no mount point"
_MS_RDONLY, _MS_REMOUNT = 1, 32
_BOOT_SECTOR_BYTES = 512


@dataclass(frozen=True)
class Removal:
    """Whether a stick may be pulled out.

    Args:
        state: `unmounted`, `read-only`, `mounted`, or `no mount point`: then the folder lies on some file system, and
            nothing is known about pulling it out.
        command: what to type so that it may be pulled; empty where nothing is to be done.
        is_dirty: whether it was pulled out earlier without unmounting; None where that could not be found out.
        check_command: what finds and mends the faults of such a file system; empty where `is_dirty` is not True.
    """

    state: str
    command: str = ""
    is_dirty: bool | None = None
    check_command: str = ""

    @property
    def is_safe(self) -> bool:
        """Whether it is safe to pull."""
        return self.state in (UNMOUNTED, READ_ONLY)

    @property
    def words(self) -> str:
        """Whether it may be pulled, for people."""
        if self.is_safe:
            return f"safe to pull: {self.state}"
        if self.state == NO_MOUNT:
            return "this folder is no mount point: before you pull a stick out, unmount it"
        return f"not safe to pull yet: type {self.command}"


def make_removable(path: Path, *, keep_mounted: bool = False) -> Removal:
    """Unmount a stick, or mount it read-only.

    Args:
        path: its folder, with everything durable.
        keep_mounted: only find the command.
    """
    mount = mount_of(path)
    if mount is None or mount.point != Path(os.path.realpath(path)) or not _has_device(mount):
        return Removal(NO_MOUNT)
    if not keep_mounted and os.geteuid() == 0:
        for release in (_unmount, _make_read_only):
            # Another mount may lie below this one, at the same place: only this one is meant.
            if mount_of(path) == mount:
                with suppress(OSError):
                    release(mount)
    same = [one for one in read_mounts() if one.device == mount.device]
    writable = next((one for one in same if not one.is_read_only), None)
    if writable is not None:
        return Removal(MOUNTED, f"sudo umount {shlex.quote(str(writable.point))}")
    is_dirty = read_dirty_mark(Path(mount.source), mount.type)
    return Removal(READ_ONLY if same else UNMOUNTED, "", is_dirty, _check_command(mount) if is_dirty else "")


def read_dirty_mark(device: Path, system: str) -> bool | None:
    """Whether a FAT or exFAT file system that is not mounted for writing has the mark of an earlier pull.

    Args:
        device: with the file system; reading it needs rights.
        system: its type, as the kernel names it.

    Returns:
        None where it cannot be read, and for other types: those with a journal mend themselves.
    """
    try:
        with open(device, "rb", buffering=0) as file:
            sector = file.read(_BOOT_SECTOR_BYTES)
    except OSError:
        return None
    return dirty_mark(sector, system) if len(sector) == _BOOT_SECTOR_BYTES else None


def dirty_mark(sector: bytes, system: str) -> bool | None:
    """Read the mark from the first sector of a file system.

    Source: Linux, fs/fat/inode.c (`fat_set_state`), and the exFAT specification 3.1.13.2 (VolumeDirty).
    """
    if system in ("vfat", "msdos"):
        # FAT12 and FAT16 have the size of a table here; FAT32 has 0, and a longer head.
        is_fat32 = sector[22:24] == b"\0\0"
        return bool(sector[65 if is_fat32 else 37] & 1)
    return bool(sector[106] & 2) if system == "exfat" else None


def _has_device(mount: Mount) -> bool:
    # btrfs has a device, and the kernel shows a number of its own for it.
    return not mount.device.startswith("0:") or mount.source.startswith("/dev/")


def _unmount(mount: Mount) -> None:
    _call("umount2", os.fsencode(mount.point), 0)


def _make_read_only(mount: Mount) -> None:
    # Without the flags of the mount, such as nodev, these would be lifted.
    status = os.statvfs(mount.point)
    kept = status.f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    _call("mount", None, os.fsencode(mount.point), None, ctypes.c_ulong(_MS_REMOUNT | _MS_RDONLY | kept), None)


def _check_command(mount: Mount) -> str:
    tool = "fsck.exfat -y" if mount.type == "exfat" else "fsck.vfat -a"
    return f"sudo {tool} {shlex.quote(mount.source)}"


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
