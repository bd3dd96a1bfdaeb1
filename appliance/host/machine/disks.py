"""The disks of a host: mounted file systems, their free space, and whether fs-verity can seal files on them.

Owns the list of mounts that could hold models, and the test for fs-verity that needs no write and no root.

Rules:
- file systems in memory, device folders and views of the kernel's state are no disks;
- the file system itself is asked for the seal of a folder. "No seal" (ENODATA) means that it could seal; "not
  supported" means that it could not. The name of its type would show neither.

Source: Linux, Documentation/filesystems/fsverity.rst, FS_IOC_MEASURE_VERITY.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

from appliance.host.machine.card import Disk

MEASURE_VERITY = 0xC0046686
_HOLDS_FILES = {"bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "iso9660", "jfs", "nfs"}
_HOLDS_FILES |= {"nfs4", "ntfs3", "overlay", "udf", "vfat", "xfs", "zfs", "9p", "virtiofs", "cifs"}
_NO = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)
_OCTAL = re.compile(r"\\([0-7]{3})")


def read_disks(root: Path, unseen: list[str]) -> tuple[Disk, ...]:
    """Read the mounted file systems.

    Args:
        root: `/`, or a folder in its place.
        unseen: receives a line for each thing that could not be seen.
    """
    try:
        lines = (root / "proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError as error:
        unseen.append(f"disks: {error.strerror}")
        return ()
    found: dict[str, Disk] = {}
    devices: set[int] = set()
    for line in lines:
        parts = line.split()
        if len(parts) < 4 or parts[2] not in _HOLDS_FILES:
            continue
        mount = _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), parts[1])
        place = root / mount.lstrip("/")
        try:
            status, device = os.statvfs(place), place.stat().st_dev
        except OSError as error:
            unseen.append(f"disk at {mount}: {error.strerror}")
            continue
        # Containers show the same file system at several places.
        if device in devices and mount != "/":
            continue
        devices.add(device)
        found[mount] = Disk(
            mount,
            parts[2],
            status.f_blocks * status.f_frsize,
            status.f_bavail * status.f_frsize,
            bool(status.f_flag & os.ST_RDONLY),
            can_seal(place),
        )
    return tuple(found[mount] for mount in sorted(found))


def can_seal(place: Path) -> bool | None:
    """Whether fs-verity can seal files in this folder; None where that could not be found out."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.ioctl(descriptor, MEASURE_VERITY, bytearray(68))
    except OSError as error:
        return True if error.errno == errno.ENODATA else False if error.errno in _NO else None
    finally:
        os.close(descriptor)
    return True
