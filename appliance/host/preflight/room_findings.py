"""What preflight finds out about the places of an install: room, inodes, and folders that can be written.

Owns how much room an install needs, by file system, and who may own the folders. It creates nothing.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.host.layout.places import PACKED, STORED, place
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Disk
from appliance.host.preflight.finding import HostFinding, judged, problem
from bundles.contents.contents import Contents, File

UNPACKED_FACTOR = 8
"""Room for a wheel beyond itself: unpacked in uv's cache, in the environment, and for trials of the runtime."""
RELEASE_INODES = 12_000
TEMPORARY_BYTES = 32 << 20
"""Room in the folder for temporary files: the bundle's program is read there, and engines have their sockets."""


@dataclass(frozen=True, slots=True)
class RoomNeed:
    """What an install takes of one file system.

    Args:
        folder: one that exists on it.
        size_bytes, inodes: needed.
        free_bytes: what this user may still write.
        free_inodes: None where the file system does not count them.
    """

    folder: Path
    size_bytes: int
    inodes: int
    free_bytes: int
    free_inodes: int | None

    @property
    def is_enough(self) -> bool:
        """Whether an install finds room."""
        return self.free_bytes >= self.size_bytes and (self.free_inodes is None or self.free_inodes >= self.inodes)


def room_needs(contents: Contents, prefix: Prefix, release: Path) -> tuple[RoomNeed, ...]:
    """Compute what an install takes of each file system; what is there already needs no room.

    Args:
        contents: verified.
        prefix: where to install.
        release: the release's folder.
    """
    needed: dict[int, list[int]] = {}
    folders: dict[int, Path] = {}
    for path, size, inodes in _needed(contents, prefix, release, missing_files(contents, prefix, release)):
        folder = existing(path)
        device = folder.stat().st_dev
        folders.setdefault(device, folder)
        total = needed.setdefault(device, [0, 0])
        total[0] += size
        total[1] += inodes
    return tuple(_need(folders[device], size, inodes) for device, (size, inodes) in needed.items())


def card_rooms(contents: Contents, prefix: Prefix, disks: Sequence[Disk]) -> tuple[RoomNeed, ...]:
    """Compute what an install takes of the file systems of another machine, by its card.

    Args:
        contents: verified.
        prefix: where to install there; nothing is there yet.
        disks: as its card lists them; what lies on none of them is left out.
    """
    needed: dict[str, list[int]] = {}
    # What this machine holds is not on the other one.
    for path, size, inodes in _needed(contents, prefix, prefix.releases / "new", contents.files):
        over = [disk.mount for disk in disks if path.is_relative_to(disk.mount)]
        if over:
            total = needed.setdefault(max(over, key=len), [0, 0])
            total[0] += size
            total[1] += inodes
    free = {disk.mount: disk.free_bytes for disk in disks}
    return tuple(RoomNeed(Path(mount), size, n, free[mount], None) for mount, (size, n) in needed.items())


def room_findings(needs: Sequence[RoomNeed]) -> list[HostFinding]:
    """Whether each file system has the room and the inodes."""
    found = []
    for need in needs:
        remedy = "free some space, or choose another --prefix"
        required, measured = f"{need.size_bytes} bytes free", f"{need.free_bytes} bytes"
        found.append(judged(need.free_bytes >= need.size_bytes, f"disk at {need.folder}", required, measured, remedy))
        if need.free_inodes is not None:
            remedy = "remove small files, or choose another --prefix"
            is_met, required = need.free_inodes >= need.inodes, f"{need.inodes} free"
            found.append(judged(is_met, f"inodes at {need.folder}", required, str(need.free_inodes), remedy))
    return found


def temporary_finding() -> HostFinding:
    """Whether the folder for temporary files has room for what an install keeps there."""
    folder = Path(tempfile.gettempdir())
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    remedy = f"remove files from {folder}, or name a folder with room: TMPDIR=DIR"
    required = f"{TEMPORARY_BYTES} bytes free"
    return judged(free >= TEMPORARY_BYTES, f"temporary files in {folder}", required, f"{free} bytes", remedy)


def folder_findings(prefix: Prefix) -> list[HostFinding]:
    """Whether the folders of an install can be written, and by nobody else."""
    found = [_foreign(folder) for folder in prefix.folders() if _is_foreign(folder)]
    read_only = [folder for folder in _written(prefix) if os.statvfs(folder).f_flag & os.ST_RDONLY]
    found += [_read_only(folder) for folder in read_only]
    folder = existing(prefix.root)
    is_met = bool(read_only) or os.access(folder, os.W_OK | os.X_OK)
    measured = "writable" if is_met else "not writable"
    remedy = "run as the user who owns it, or choose another --prefix"
    subject, required = f"prefix {prefix.root}", "a folder that this user can write"
    return [*found, judged(is_met, subject, required, measured, remedy)]


def missing_files(contents: Contents, prefix: Prefix, release: Path) -> list[File]:
    """The files of a bundle that do not lie at their place yet, judged by names and sizes."""
    return [file for file in contents.files if not _is_there(place(prefix, release, file), file)]


def existing(path: Path) -> Path:
    """The nearest folder above a path, or the path itself, that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _written(prefix: Prefix) -> list[Path]:
    places = [prefix.opt, prefix.state, prefix.etc, *([prefix.units] if prefix.is_system else [])]
    return list(dict.fromkeys(existing(path) for path in places))


def _need(folder: Path, size: int, inodes: int) -> RoomNeed:
    status = os.statvfs(folder)
    free_inodes = status.f_favail if status.f_files else None
    return RoomNeed(folder, size, inodes, status.f_bavail * status.f_frsize, free_inodes)


def _needed(contents: Contents, prefix: Prefix, release: Path, missing: Sequence[File]) -> list[tuple[Path, int, int]]:
    found = [(prefix.models if file.kind in STORED else release, file.size, 2) for file in missing]
    if not (release / "venv" / "pyvenv.cfg").exists():
        packed = sum(file.size for file in contents.of_kind(*PACKED))
        found.append((release, packed * UNPACKED_FACTOR, RELEASE_INODES))
    return found


def _is_there(path: Path, file: File) -> bool:
    try:
        return path.stat().st_size == file.size
    except OSError:
        return False


def _is_foreign(folder: Path) -> bool:
    """Whether another user could replace files in a folder between their check and their use."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    is_ours = status.st_uid in (0, os.geteuid())
    return not (stat.S_ISDIR(status.st_mode) and is_ours and not status.st_mode & stat.S_IWOTH)


def _foreign(folder: Path) -> HostFinding:
    status = folder.lstat()
    return problem(
        f"folder {folder}",
        f"a folder of user {os.geteuid()} that not everybody can write",
        f"mode {stat.filemode(status.st_mode)} of user {status.st_uid}",
        f"run as user {status.st_uid} if that is you, or choose another --prefix",
    )


def _read_only(folder: Path) -> HostFinding:
    return problem(
        f"folder {folder}",
        "a file system that can be written",
        "mounted read-only",
        f"mount -o remount,rw {folder}, or see why the kernel made it read-only: dmesg",
    )
