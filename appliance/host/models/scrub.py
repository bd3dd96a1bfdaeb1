"""Reading a stored file again, to find bytes that have changed on the disk since its install (threat T18).

Owns the slow reading. `appliance.host.maintenance.scrubbing` decides which files, and what follows.

Rules:
- it reads the disk and not the memory: past the page cache where the file system can, else after the cache was emptied.
  Pages that an engine has mapped stay in memory; the kernel checks those of a sealed file when it reads them again;
- it takes what is left: one thread, idle processor time, idle disk time;
- the first fault ends it: the file has to be copied again in any case;
- where the machine lacks memory or descriptors, that is an error, and no fault of the file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.host.models.incident import BYTES, UNREADABLE
from appliance.host.models.served_file import has_signed_seal
from bundles.chunks.check import placed
from bundles.contents.contents import File
from bundles.progress import OnProgress, Progress, ignore

BLOCK_BYTES = 1 << 20
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR)
"""Errors of a machine that lacks something at this moment."""
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE_CLASS, _WHO_PROCESS = 3 << 13, 1


@dataclass(frozen=True, slots=True)
class FileFault:
    """What is wrong with a stored file.

    Args:
        cause: `BYTES` or `UNREADABLE`.
        detail: which bytes, and what was found there.
    """

    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileScrub:
    """What a scrub of one file found.

    Args:
        size_bytes: read.
        is_sealed: whether the kernel refuses changed pages of it.
        is_direct: whether the disk was read past the page cache.
        fault: None where every byte is the signed one.
    """

    size_bytes: int
    is_sealed: bool
    is_direct: bool
    fault: FileFault | None


def become_idle() -> None:
    """Let this thread take only what others leave of the processor and the disk; does nothing where it may not."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _IDLE_CLASS)


def scrub_file(file: File, path: Path, on_progress: OnProgress = ignore) -> FileScrub:
    """Read a stored file from the disk, and compare it with its signed chunks.

    Args:
        file: verified.
        path: where it lies on this host.
        on_progress: called with bytes done.

    Raises:
        OSError: it cannot be opened, or the machine has one of the `SHORTAGES`.
    """
    descriptor, is_direct = _open(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            other = FileFault(BYTES, f"{file.size} bytes expected, {status.st_size} found")
            return FileScrub(0, False, is_direct, other)
        blocks = _read_blocks(descriptor, file.size, is_direct=is_direct)
        fault = _compare(file, blocks, on_progress)
        is_direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        return FileScrub(file.size, has_signed_seal(file, descriptor), is_direct, fault)
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags), False


def _read_blocks(descriptor: int, size: int, *, is_direct: bool) -> Iterator[memoryview]:
    """Read a file from its start; each block is good until the next one is asked for."""
    buffer = mmap.mmap(-1, BLOCK_BYTES)  # direct reads need memory that begins at a page
    at = 0
    while at < size:
        if not is_direct:
            os.posix_fadvise(descriptor, at, BLOCK_BYTES, os.POSIX_FADV_DONTNEED)
        try:
            count = os.preadv(descriptor, [buffer], at)
        except OSError as error:
            if not is_direct or error.errno != errno.EINVAL:
                raise
            # Some file systems open a file for direct reads, and then refuse one of them.
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)
            is_direct = False
            continue
        if count == 0:
            return
        yield memoryview(buffer)[:count]
        at += count
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _compare(file: File, blocks: Iterator[memoryview], on_progress: OnProgress) -> FileFault | None:
    done = 0
    block = memoryview(b"")
    try:
        for start, chunk in placed(file):
            state, left = hashlib.sha256(), chunk.size
            while left:
                if not block:
                    block = next(blocks, memoryview(b""))
                    if not block:
                        return FileFault(BYTES, f"the file ends before byte {start + chunk.size}")
                state.update(block[:left])
                taken = min(left, len(block))
                block, left, done = block[taken:], left - taken, done + taken
            on_progress(Progress(f"reading {file.path}", done, file.size, "bytes"))
            if state.hexdigest() != chunk.sha256:
                span = f"bytes {start} to {start + chunk.size - 1}"
                return FileFault(BYTES, f"{span} with sha256 {state.hexdigest()}, signed {chunk.sha256}")
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return FileFault(UNREADABLE, f"from byte {done}: {error.strerror}")
    return None
