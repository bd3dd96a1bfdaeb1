"""Access to the files of a stick or bundle folder, the only one.

Owns opening, reading, listing, writing and renaming below one root folder, whose content is hostile. A simulated medium
takes its place in tests, so nothing else in `bundles` may call `open` on such a path.

Rules (threats T16, T21):
- every component of a path is opened beneath the one before it without following links;
- only regular files are opened; device nodes, FIFOs and links are refused by name;
- writing is a new file, fsync, rename, fsync of the folder, without following a link that lies there; an existing file
  with the right bytes is not touched;
- a reader never deletes anything.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from signing.errors import ApplianceError, DamagedError, NotTrustedError

REWRITTEN_HINT = (
    "copy this bundle again; where a scanning station (kiosk) has sanitised the file, that is, rewritten it, ask for "
    "copy-only"
)
"""The next step for a file whose length is another than what was signed, or that has the form of an archive."""
PART_FILE = ".writing.part"
"""Where a file grows before it gets its name: at the root, where a leftover is litter and no name that is covered."""
PARTS_FOLDER = ".writing"
"""Where several files grow at the same time: as `PART_FILE`, outside the covered folders."""
PART_SUFFIX = ".part"
"""The end of a name under which a file grows in a spool, as the receivers of data diodes write them."""
NOT_A_FILE = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_DEPTH = 16
"""Folders below one another that a medium may hold: far more than a bundle has, far fewer than Python can walk."""


class Medium:
    """A folder that holds all or some of a bundle.

    Args:
        root: the folder; it need not exist before the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, path: str) -> int:
        """Open a regular file for reading.

        Args:
            path: relative, with `/`, below the root.

        Returns:
            A descriptor that the caller closes.

        Raises:
            FileNotFoundError: it is not there.
            NotTrustedError: it, or a folder on the way, is a link or no regular file.
            DamagedError: the medium cannot read it.
        """
        with self._folder(path) as (folder, name):
            try:
                descriptor = os.open(name, _FILE, dir_fd=folder)
            except OSError as error:
                raise self._explain(error, path) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _hostile(path, "a regular file", "something else")
        return descriptor

    def read(self, path: str, most: int) -> bytes | None:
        """Read a small file whole: at most `most` bytes and one more, so that a longer one shows. None where absent."""
        try:
            descriptor = self.open(path)
        except FileNotFoundError:
            return None
        try:
            with os.fdopen(descriptor, "rb") as stream:
                return stream.read(most + 1)
        except OSError as error:
            raise self._explain(error, path) from None

    def list(self, folder: str) -> tuple[str, ...]:
        """Names of everything directly in a folder, sorted; empty where there is none. The root's name is empty."""
        try:
            with self._folder(f"{folder}/x" if folder else "x") as (descriptor, _):
                try:
                    return tuple(sorted(os.listdir(descriptor)))
                except OSError as error:
                    raise self._explain(error, folder) from None
        except FileNotFoundError:
            return ()

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of every file below a folder, sorted; what is neither file nor folder is a refusal."""
        yield from (path for path in self.tree(folder) if not path.endswith("/"))

    def tree(self, folder: str) -> Iterator[str]:
        """Paths of every file below a folder, and with a `/` at the end of every folder in which nothing lies.

        Raises:
            NotTrustedError: something there is neither file nor folder, or folders lie too deep in one another.
        """
        names = self.list(folder)
        if not names and os.path.lexists(self.root / folder):
            yield f"{folder}/"
        for name in names:
            path = f"{folder}/{name}"
            try:
                mode = os.lstat(self.root / path).st_mode
            except OSError as error:
                raise _unreadable(path, error) from None
            if stat.S_ISDIR(mode):
                if path.count("/") >= MAX_DEPTH:
                    raise _hostile(f"{path[:80]}…", f"at most {MAX_DEPTH} folders below one another", "more")
                yield from self.tree(path)
            elif stat.S_ISREG(mode):
                yield path
            else:
                raise _hostile(path, "files and folders", "a link or device")

    def write(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        """Put bytes at a path, durably.

        Returns:
            False where a file with these bytes was there already; it is then left as it is.

        Raises:
            ApplianceError: no space left (code `disk.full`), or the medium refuses writing.
        """
        with suppress(DamagedError):  # what cannot be read is written anew
            if self.read(path, len(data)) == data:
                return False
        try:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            with self._folder(path) as (folder, name), self._folder(PART_FILE) as (root, _):
                self._put(root, folder, name, data)
        except OSError as error:
            raise explain_write(error, self.root / path, len(data)) from None
        return True

    def remove(self, path: str) -> None:
        """Remove a file, and the folders that it leaves empty: in a covered folder they would be a refusal."""
        (self.root / path).unlink()
        for folder in (self.root / path).parents:
            if folder == self.root or next(folder.iterdir(), None) is not None:
                return
            folder.rmdir()

    def create_part(self, name: str) -> BinaryIO:
        """Begin a new file that gets its name later, by `place_part`; it lies in `PARTS_FOLDER` until then.

        Args:
            name: short, and of one writer alone; what lies there under this name is removed.

        Raises:
            OSError: the medium refuses it.
            NotTrustedError: a link lies in the place of the folder.
        """
        self._make_folders(f"{PARTS_FOLDER}/{name}")
        with self._folder(f"{PARTS_FOLDER}/{name}") as (folder, _):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            return self.writer(os.open(name, _NEW, 0o666, dir_fd=folder))

    def place_part(self, name: str, path: str) -> None:
        """Give a part its name, in place of any file that has it; the caller has made its bytes durable.

        Raises:
            OSError: the medium refuses it.
            NotTrustedError: a link lies on the way.
        """
        self._make_folders(path)
        with self._folder(f"{PARTS_FOLDER}/{name}") as (parts, _), self._folder(path) as (folder, last):
            os.replace(name, last, src_dir_fd=parts, dst_dir_fd=folder)

    def remove_parts(self) -> None:
        """Remove what was begun and got no name, such as after an interruption; a medium that is gone keeps it."""
        with suppress(OSError, DamagedError), self._folder(f"{PARTS_FOLDER}/x") as (folder, _):
            for name in os.listdir(folder):
                os.unlink(name, dir_fd=folder)
            os.rmdir(self.root / PARTS_FOLDER)

    def free_bytes(self) -> tuple[int, int]:
        """How many bytes have room on it, and the size of its blocks, in bytes."""
        folder = next(parent for parent in (self.root, *self.root.absolute().parents) if parent.exists())
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize, status.f_frsize

    def _make_folders(self, path: str) -> None:
        # Not the root: where a stick was pulled out, the place that is left belongs to this machine.
        for folder in reversed(Path(path).parents[:-1]):
            (self.root / folder).mkdir(exist_ok=True)

    def _put(self, root: int, folder: int, name: str, data: bytes | bytearray | memoryview) -> None:
        try:
            with suppress(FileNotFoundError):
                os.unlink(PART_FILE, dir_fd=root)
            with self.writer(os.open(PART_FILE, _NEW, 0o666, dir_fd=root)) as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(PART_FILE, name, src_dir_fd=root, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # give the room back; a stick that was pulled cannot
                os.unlink(PART_FILE, dir_fd=root)
            raise

    def writer(self, descriptor: int) -> BinaryIO:
        """The stream over a new file; where a simulated medium puts its faults."""
        return os.fdopen(descriptor, "wb")

    @contextmanager
    def _folder(self, path: str) -> Iterator[tuple[int, str]]:
        *folders, name = path.split("/")
        try:
            current = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._explain(error, path) from None
        try:
            for part in folders:
                try:
                    deeper = os.open(part, _FOLDER, dir_fd=current)
                except OSError as error:
                    raise self._explain(error, path) from None
                os.close(current)
                current = deeper
            yield current, name
        finally:
            os.close(current)

    def _explain(self, error: OSError, path: str) -> Exception:
        if error.errno == errno.ENOENT:
            return FileNotFoundError(error.errno, "no such file", path)
        if error.errno in NOT_A_FILE:
            return _hostile(path, "a regular file", "a link or another kind of file")
        return _unreadable(path, error)


class SpoolMedium(Medium):
    """A folder that is filling still, such as the spool of a data diode: files that are growing there are not seen."""

    def list(self, folder: str) -> tuple[str, ...]:
        """As `Medium.list`, without the names that end in `.part`."""
        return tuple(name for name in super().list(folder) if not name.endswith(PART_SUFFIX))


def explain_write(error: OSError, path: Path, size: int) -> ApplianceError:
    """Turn a failed write into an error with the free space and the next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path, size)
    return ApplianceError(
        "write.failed",
        str(path),
        expected="a place that can be written",
        found=os.strerror(error.errno or 0),
        hint="check the owner and mode of the folder, and whether the medium is write-protected",
    )


def disk_full(path: Path, size: int) -> ApplianceError:
    """The error for a full disk: how much was to be written, how much is free."""
    folder = next((parent for parent in (path, *path.parents) if parent.exists()), Path())
    status = os.statvfs(folder)
    return ApplianceError(
        "disk.full",
        str(path),
        expected=f"room for {size} bytes more" if size else "room on the disk",
        found=f"{status.f_bavail * status.f_frsize} bytes free",
        hint="free some space there and run the same command again; it goes on where it stopped",
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: str, error: OSError) -> DamagedError:
    return DamagedError(
        "medium.read-failed",
        path,
        expected="readable bytes",
        found=os.strerror(error.errno or 0),
        hint="plug the stick in again or copy it again",
    )


def _hostile(path: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError(
        "medium.hostile", path, expected=expected, found=found, hint="somebody prepared this medium; ask a key holder"
    )
