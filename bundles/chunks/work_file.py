"""The work file of a copy: `<name>.partial`, which grows at its final offsets until every chunk is right.

Owns opening, going on with a leftover, and giving the final name. It must never give the name to a file that lacks a
chunk.

Rules (threats T25, T35):
- what an interrupted run left counts only after it was hashed again, as the disk has it; holes are not read;
- a link, a second name of a file, or a device in the place of the work file is refused: the copy would write elsewhere;
- fsync, then rename, then fsync of the folder;
- a file that is right already keeps its inode and its times; a wrong one is replaced by a new inode.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from bundles.chunks.check import hash_range, placed
from bundles.chunks.chunk import Chunk
from bundles.chunks.clone import clone_file
from bundles.chunks.source import Seed
from bundles.contents.contents import File
from bundles.durability import forget_cached
from bundles.medium import NOT_A_FILE, explain_write, sync_folder
from signing.errors import NotTrustedError

_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class CopyJob:
    """A file to be put together.

    Args:
        file: verified.
        destination: the final path; its folder is made where it is missing.
        mode: permission bits instead of the file's own, for example 0o444 in a store.
    """

    file: File
    destination: Path
    mode: int | None = None

    @property
    def bits(self) -> int:
        """The permission bits that the file gets."""
        return self.file.mode if self.mode is None else self.mode


class WorkFile:
    """One file while it is put together; its methods are called by several threads.

    Args:
        job: what is to be made.
    """

    def __init__(self, job: CopyJob) -> None:
        self.job = job
        self.places = tuple(placed(job.file))
        self.right: set[int] = set()
        """Where the file under the final name has the right chunk, by offset."""
        self.clone_of: Path | None = None
        """A file of this host that may have the same bytes; untrusted."""
        self._partial = job.destination.with_name(f"{job.destination.name}.partial")
        self._left = len(self.places)
        self._lock = Lock()
        self._descriptor = -1
        self._had = _size_of(self._partial)

    def may_be_right(self) -> bool:
        """Whether a regular file of the right length has the final name."""
        try:
            status = os.lstat(self.job.destination)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == self.job.file.size

    def compare(self, start: int, chunk: Chunk) -> bool:
        """Hash a chunk of the file under the final name, and note whether it is right."""
        try:
            descriptor = open_regular(self.job.destination)
        except OSError:
            return False
        try:
            if hash_range(descriptor, start, chunk.size) == chunk.sha256:
                self.right.add(start)
        except OSError:  # what cannot be read is made again
            return False
        finally:
            os.close(descriptor)
        return start in self.right

    def is_right(self) -> bool:
        """Whether every chunk of the file under the final name was found right."""
        return len(self.right) == len(self.places) and self.may_be_right()

    def seeds_at(self, start: int) -> tuple[Seed, ...]:
        """Where the chunk at an offset lies: in the work file, and under the final name once it is finished."""
        return Seed(self._partial, start), Seed(self.job.destination, start)

    def keep(self) -> None:
        """Leave the file under the final name as it is: only its mode is set, and a leftover beside it removed."""
        with self.explained():
            if stat.S_IMODE(os.lstat(self.job.destination).st_mode) != self.job.bits:
                self.job.destination.chmod(self.job.bits)
            self._partial.unlink(missing_ok=True)

    @property
    def descriptor(self) -> int:
        """The open work file; made at the first call, as a clone where one is possible.

        Raises:
            NotTrustedError: something else lies in its place.
            OSError: the place cannot be written.
        """
        with self._lock:
            if self._descriptor < 0:
                self.job.destination.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = _open_partial(self._partial)
                if self._had:
                    forget_cached(self._descriptor)
                if not self._had and self.clone_of is not None and _is_cloned(self.clone_of, self._descriptor):
                    self._had = self.job.file.size
                if os.fstat(self._descriptor).st_size > self.job.file.size:
                    os.truncate(self._descriptor, self.job.file.size)
            return self._descriptor

    def has(self, start: int, chunk: Chunk) -> bool:
        """Whether a leftover, or a clone, holds this chunk at its place; it is hashed, unless there is a hole."""
        if not self._had and self.clone_of is None:
            return False
        descriptor = self.descriptor
        if self._had < start + chunk.size or not _is_data(descriptor, start, chunk.size):
            return False
        try:
            return hash_range(descriptor, start, chunk.size) == chunk.sha256
        except OSError:  # what cannot be read is written again
            return False

    def count_right(self) -> None:
        """Count one more chunk as right; after the last one the file gets its final name, durably.

        Raises:
            OSError: the disk could not keep it.
        """
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self.finish()

    def finish(self) -> None:
        """Give the file its final name, durably; errors as for `count_right`."""
        descriptor = self.descriptor
        os.fchmod(descriptor, self.job.bits)
        os.fsync(descriptor)
        self.close()
        os.replace(self._partial, self.job.destination)
        sync_folder(self.job.destination.parent)

    def sync(self) -> None:
        """Make durable what is there so far, where the work file is open."""
        with self.explained():
            if self._descriptor >= 0:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the work file; safe to call twice."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    @contextmanager
    def explained(self) -> Iterator[None]:
        """For the length of the block, a fault of writing to this file is an error with the next step.

        Raises:
            ApplianceError: no space left (code `disk.full`), or the place cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise explain_write(error, self.job.destination, self.job.file.size) from None


def open_regular(path: Path) -> int:
    """Open a regular file of this host for reading, without following a link; the caller closes it.

    Raises:
        OSError: it is none, or cannot be read.
    """
    descriptor = os.open(path, _READ)
    # A FIFO has no bytes, and would pass for an empty file.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return descriptor


def _size_of(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _open_partial(path: Path) -> int:
    try:
        descriptor = os.open(path, _WRITE, 0o600)
    except PermissionError:
        # An interrupted run had finished it: it has the mode of the file already, which may be read-only.
        finished = _own(os.open(path, _READ), path)
        try:
            os.fchmod(finished, 0o600)
        finally:
            os.close(finished)
        descriptor = os.open(path, _WRITE, 0o600)
    except OSError as error:
        if error.errno in (*NOT_A_FILE, errno.EISDIR):
            raise _planted(path) from None
        raise
    return _own(descriptor, path)


def _own(descriptor: int, path: Path) -> int:
    """The descriptor, where nothing else can be meant by it: a regular file with one name."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise _planted(path)


def _planted(path: Path) -> NotTrustedError:
    return NotTrustedError(
        "file.hostile",
        str(path),
        expected="nothing, or a regular file with one name",
        found="a link or another kind of file",
        hint="find out who put it there, and remove it; then run the same command again",
    )


def _is_data(descriptor: int, start: int, size: int) -> bool:
    """Whether a range of a file has no hole; a file system without holes has only data."""
    try:
        return os.lseek(descriptor, start, os.SEEK_HOLE) >= start + size
    except OSError:
        return False


def _is_cloned(origin: Path, destination: int) -> bool:
    try:
        descriptor = open_regular(origin)
    except OSError:
        return False
    try:
        return clone_file(descriptor, destination)
    finally:
        os.close(descriptor)
