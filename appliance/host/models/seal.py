"""The seal of a file: fs-verity, by which the kernel refuses every page that is not the signed one.

Owns the setting and the measuring of seals. `bundles.fsverity_digest` computes the same digest in user space, and the
signed contents list it for each model and each library.

Rules:
- a seal counts only where it is measured on the descriptor that is served, and equals the signed digest;
- it counts only on file systems whose seals the kernel itself keeps: another one could answer what it likes;
- a file system without the feature stays as it is: only its owner turns the feature on. Linux 6.1 mounts no ext4 with
  blocks of 1 KiB once it has the feature;
- a file that cannot be sealed is served at a lower level, and the reason is stated.

Source: Linux, Documentation/filesystems/fsverity.rst, FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.host.machine.disks import MEASURE_VERITY, can_seal
from bundles.fsverity_digest import BLOCK_BYTES
from signing.digest import Digest

ENABLE_VERITY = 0x40806685
SEALED, NO_FEATURE, OTHER_BLOCKS, OTHER_SEAL, NOT_OWNED, BUSY, FAILED = (
    "sealed",
    "no-feature",
    "other-blocks",
    "other-seal",
    "not-owned",
    "busy",
    "failed",
)
"""The outcomes of `seal`."""

_SHA256 = 1
_DIGEST_BYTES = 32
_MEASURED = struct.Struct("<HH32s")
_ENABLE = struct.Struct("<IIIIQIIQ88x")
EXT4 = "ext4"
_KERNEL_SEALS = {0xEF53: EXT4, 0xF2F52010: "f2fs", 0x9123683E: "btrfs"}
"""File systems whose seals the kernel checks, by the number that statfs(2) gives; the first includes ext2 and ext3."""
_NONE = (errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EOVERFLOW, errno.ENOSYS)
_REFUSED = {
    errno.EOPNOTSUPP: NO_FEATURE,
    errno.ENOTTY: NO_FEATURE,
    errno.ENOSYS: NO_FEATURE,
    errno.EINVAL: OTHER_BLOCKS,
    errno.EPERM: NOT_OWNED,
    errno.EACCES: NOT_OWNED,
    errno.EROFS: NOT_OWNED,
    errno.ETXTBSY: BUSY,
    errno.EBUSY: BUSY,
}


@dataclass(frozen=True, slots=True)
class SealResult:
    """What became of a file that was to be sealed.

    Args:
        outcome: one of the words above.
        detail: of the kernel, for people; empty where the file is sealed.
    """

    outcome: str
    detail: str = ""

    @property
    def is_sealed(self) -> bool:
        """Whether the kernel refuses every page that is not the signed one."""
        return self.outcome == SEALED


def measure(descriptor: int) -> Digest | None:
    """The digest that the kernel enforces on an open file; reads none of its bytes.

    Args:
        descriptor: of a regular file.

    Returns:
        None where the file has no seal, one of another algorithm, or one that another program than the kernel keeps.

    Raises:
        OSError: the disk does not answer.
    """
    if filesystem_kind(descriptor) is None:
        return None
    answer = bytearray(_MEASURED.pack(0, _DIGEST_BYTES, b""))
    try:
        fcntl.ioctl(descriptor, MEASURE_VERITY, answer)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    algorithm, size, digest = _MEASURED.unpack(answer)
    return Digest(digest.hex()) if (algorithm, size) == (_SHA256, _DIGEST_BYTES) else None


def seal(path: Path, expected: Digest) -> SealResult:
    """Seal a file, once its bytes are the signed ones. Costs one read of the file, and 1/127 of its size on the disk.

    Args:
        path: of a regular file that nothing writes to; links are not followed.
        expected: the signed digest.

    Returns:
        What became of it; a file that was sealed before is left alone.

    Raises:
        OSError: it cannot be opened, or the disk does not answer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return SealResult(FAILED, "no regular file")
        found = measure(descriptor)
        if found is None:
            if filesystem_kind(descriptor) is None:
                return SealResult(NO_FEATURE, "this file system has no seals that the kernel keeps")
            if (refused := _enable(descriptor)) is not None:
                return refused
            found = measure(descriptor)
        if found == expected:
            return SealResult(SEALED)
        return SealResult(OTHER_SEAL, f"a seal with digest {found}" if found else "another kind of seal")
    finally:
        os.close(descriptor)


def seal_ability(folder: Path) -> SealResult:
    """Whether files in a folder can be sealed, as far as can be seen without writing.

    Args:
        folder: exists.

    Returns:
        `SEALED` where they can; else the outcome that `seal` would have.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return SealResult(FAILED, error.strerror or "")
    try:
        kind, block = filesystem_kind(descriptor), os.fstatvfs(descriptor).f_frsize
    finally:
        os.close(descriptor)
    if kind is None:
        return SealResult(NO_FEATURE, "this kind of file system has no seals that the kernel keeps")
    if kind == EXT4 and block < BLOCK_BYTES:
        return SealResult(OTHER_BLOCKS, f"{kind} with blocks of {block} bytes")
    if can_seal(folder):
        return SealResult(SEALED, kind)
    return SealResult(NO_FEATURE, f"{kind} without the feature verity, or a kernel without it")


def filesystem_kind(descriptor: int) -> str | None:
    """The name of the file system that an open file lies on; None where the kernel keeps no seals on it."""
    found = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, found):
        return None
    return _KERNEL_SEALS.get(ctypes.c_ulong.from_buffer(found).value)


def seal_remedy(result: SealResult) -> str:
    """What a person can do where files are not sealed."""
    return _REMEDIES[result.outcome]


def describe_missing_seal(outcomes: Mapping[str, SealResult]) -> str:
    """Why files are not sealed and how they could be, in one line; empty where all are.

    Args:
        outcomes: by the names of the files, for people.
    """
    open_files = {name: one for name, one in outcomes.items() if not one.is_sealed}
    if not open_files:
        return ""
    first = next(iter(open_files.values()))
    return f"not sealed: {', '.join(sorted(open_files))} ({first.detail or first.outcome}); {_REMEDIES[first.outcome]}"


_REMEDIES = {
    NO_FEATURE: "on ext4 with blocks of 4096 bytes its owner gives it: tune2fs -O verity DEVICE (docs/team.md)",
    OTHER_BLOCKS: f"a seal needs blocks of {BLOCK_BYTES} bytes. Never give this one the feature verity: Linux 6.1 no "
    "longer mounts it then; make a new file system with mkfs.ext4 -b 4096 -O verity",
    OTHER_SEAL: "remove the file, then run the same `appliance install` again",
    NOT_OWNED: "its owner has to run the same `appliance install` again",
    BUSY: "a program writes to it; end that, then run the same `appliance install` again",
    FAILED: "look at the disk; then run the same `appliance install` again",
}


def _enable(descriptor: int) -> SealResult | None:
    """Enable the seal; None where that worked, or another process was first."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    must_open = os.geteuid() != 0 and not mode & stat.S_IWUSR
    try:
        if must_open:  # the kernel asks an owner for the right to write, although nothing is written
            os.fchmod(descriptor, mode | stat.S_IWUSR)
        fcntl.ioctl(descriptor, ENABLE_VERITY, _ENABLE.pack(1, _SHA256, BLOCK_BYTES, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno == errno.EEXIST:
            return None
        if error.errno == errno.EINTR:
            return SealResult(FAILED, "interrupted")
        return SealResult(_REFUSED.get(error.errno or 0, FAILED), error.strerror or "")
    finally:
        if must_open:
            os.fchmod(descriptor, mode)
    return None
