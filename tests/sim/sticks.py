"""Sticks that lie, break, fill up or are pulled out; seen through the same type as real ones.

A `SimStick` is a `Medium` over a real folder, with faults that a test switches on. Faults of reading hand out real
descriptors with other bytes behind them; faults of writing come out of the very calls that a real medium fails in.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, cast
from unittest import mock

import bundles.oci.layout
from bundles.medium import PART_FILE, Medium, explain_write
from bundles.oci.layout import BLOBS

Data = bytes | bytearray | memoryview


class SimStick(Medium):
    """A stick with faults.

    Args:
        root: a folder, as the stick would be mounted.
        capacity_bytes: how many more bytes can be written; None for as many as the disk holds.
        is_read_only: the switch at its side.
        folds_case: names that differ in case alone are one name, as on FAT32.
        pull_after_bytes: somebody pulls it out after so many bytes were written; `plug_in` brings it back.
        yank_after_opens: somebody pulls it out after so many files were opened, without unmounting; see `yank`.
    """

    def __init__(
        self,
        root: Path,
        *,
        capacity_bytes: int | None = None,
        is_read_only: bool = False,
        folds_case: bool = False,
        pull_after_bytes: int | None = None,
        yank_after_opens: int | None = None,
    ) -> None:
        super().__init__(root)
        self.capacity_bytes = capacity_bytes
        self.is_read_only = is_read_only
        self.folds_case = folds_case
        self.pull_after_bytes = pull_after_bytes
        self.yank_after_opens = yank_after_opens
        self.is_yanked = False
        self.opened: list[str] = []
        self.half_written: bytes | None = None
        self._instead: dict[str, list[bytes | None]] = {}
        self._unreadable: set[str] = set()

    def flip_bit(self, path: str, bit: int = 0) -> None:
        """One bit of a file reads wrong, always."""
        data = bytearray(self._bytes(path))
        data[bit // 8] ^= 1 << bit % 8
        self._instead[path] = [bytes(data)]

    def truncate(self, path: str, size_bytes: int) -> None:
        """A file ends early."""
        self._instead[path] = [self._bytes(path)[:size_bytes]]

    def give(self, path: str, *readings: bytes | None) -> None:
        """What a file reads as when it is opened the first, second … time; None is what lies there; the last stays."""
        self._instead[path] = list(readings)

    def fail_to_read(self, path: str) -> None:
        """A file opens, and every read of it fails with EIO."""
        self._unreadable.add(path)

    def pull(self) -> None:
        """Pull it out: the folder is gone."""
        os.rename(self.root, self._elsewhere)

    def yank(self) -> None:
        """Pull it out without unmounting, as the kernel shows it on FAT32: reads fail, and folders look empty."""
        self.is_yanked = True

    def replug(self) -> None:
        """Put a yanked stick in again."""
        self.yank_after_opens = None
        self.is_yanked = False

    def heal(self) -> None:
        """All faults of reading are gone: the stick was written again."""
        self._instead.clear()
        self._unreadable.clear()
        self.replug()

    def plug_in(self) -> None:
        """Plug it in again, with whatever arrived before."""
        self.pull_after_bytes = None
        os.rename(self._elsewhere, self.root)
        # Through the folder that it still holds open, a writer could tidy up here; on a stick that is gone it cannot.
        if self.half_written is not None:
            (self.root / PART_FILE).write_bytes(self.half_written)
        self.half_written = None

    @contextmanager
    def plugged(self) -> Iterator[None]:
        """For the length of the block, whoever opens a layout at this folder gets this stick."""
        with plugged(self):
            yield

    def list(self, folder: str) -> tuple[str, ...]:
        """As `Medium.list`; a stick that was yanked seems empty, without an error."""
        return () if self.is_yanked else super().list(folder)

    def open(self, path: str) -> int:
        """As `Medium.open`, with the faults."""
        if self.yank_after_opens == len(self.opened):
            self.yank()
        if self.is_yanked:
            raise self._explain(OSError(errno.EIO, os.strerror(errno.EIO)), path)
        descriptor = super().open(self._spelled(path))
        self.opened.append(path)
        if path in self._unreadable:
            os.close(descriptor)
            return _failing()
        readings = self._instead.get(path)
        data = None if not readings else readings.pop(0) if len(readings) > 1 else readings[0]
        if data is None:
            return descriptor
        os.close(descriptor)
        return _holding(data)

    def write(self, path: str, data: Data) -> bool:
        """As `Medium.write`, with the faults."""
        spelled = self._spelled(path)
        if self.is_read_only:
            if self.read(path, len(data)) == data:
                return False
            raise explain_write(OSError(errno.EROFS, "read-only"), self.root / path, len(data))
        return super().write(spelled, data)

    def create_part(self, name: str) -> BinaryIO:
        """As `Medium.create_part`, with the faults."""
        if self.is_read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().create_part(name)

    def place_part(self, name: str, path: str) -> None:
        """As `Medium.place_part`, under the name that lies there."""
        super().place_part(name, self._spelled(path))

    def writer(self, descriptor: int) -> BinaryIO:
        """As `Medium.writer`, with the faults."""
        return cast(BinaryIO, _Stream(self, super().writer(descriptor)))

    @property
    def _elsewhere(self) -> Path:
        return self.root.with_name(f"{self.root.name}.pulled")

    def _bytes(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def _spelled(self, path: str) -> str:
        """The path in the spelling that lies there."""
        if not self.folds_case:
            return path
        folder, parts = self.root, []
        for part in path.split("/"):
            names = os.listdir(folder) if folder.is_dir() else []
            parts.append(next((name for name in names if name.casefold() == part.casefold()), part))
            folder /= parts[-1]
        return "/".join(parts)

    def take(self, data: Data) -> tuple[Data, OSError | None]:
        """How much of what is written arrives, and the error for the rest."""
        left = [limit for limit in (self.capacity_bytes, self.pull_after_bytes) if limit is not None]
        fits = min([len(data), *left])
        if self.capacity_bytes is not None:
            self.capacity_bytes -= fits
        if self.pull_after_bytes is not None:
            self.pull_after_bytes -= fits
        if fits == len(data):
            return data, None
        number = errno.EIO if self.pull_after_bytes == 0 else errno.ENOSPC
        return bytes(data[:fits]), OSError(number, os.strerror(number))


class _Stream:
    """A file on the stick that is being written."""

    def __init__(self, stick: SimStick, file: IO[Any]) -> None:
        self._stick = stick
        self._file = file

    def __enter__(self) -> _Stream:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: Data) -> int:
        arrived, error = self._stick.take(data)
        self._file.write(arrived)
        if error is not None:
            self._file.flush()
            if error.errno == errno.EIO:
                self._stick.half_written = bytes(arrived)
                self._stick.pull()
            raise error
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


@contextmanager
def plugged(*sticks: SimStick) -> Iterator[None]:
    """For the length of the block, whoever opens a layout at the folder of one of these gets that stick."""
    by_root = {stick.root: stick for stick in sticks}
    with mock.patch.object(bundles.oci.layout, "Medium", lambda root: by_root.get(root) or Medium(root)):
        yield


def spread(bundle: Path, *sticks: Path, everywhere: Collection[str] = ()) -> None:
    """Copy a bundle to several sticks: the small files to each, the blobs in turn.

    Args:
        bundle: a folder with all of it.
        sticks: folders to be made.
        everywhere: names of blobs that each stick holds, such as the manifest.
    """
    blobs = [blob.name for blob in sorted((bundle / BLOBS / "sha256").iterdir()) if blob.name not in everywhere]
    for number, stick in enumerate(sticks):
        put(bundle, stick, [*everywhere, *blobs[number :: len(sticks)]])


def put(bundle: Path, stick: Path, blobs: Collection[str]) -> None:
    """Make a stick that holds a bundle's small files, and some of its blobs.

    Args:
        bundle: a folder with all of it.
        stick: a folder to be made; its blobs are copies, which a test may damage.
        blobs: names of the blobs that it gets.
    """
    shutil.copytree(bundle, stick, ignore=shutil.ignore_patterns(BLOBS))
    (stick / BLOBS / "sha256").mkdir(parents=True)
    for name in blobs:
        shutil.copyfile(bundle / BLOBS / "sha256" / name, stick / BLOBS / "sha256" / name)


def _holding(data: bytes) -> int:
    descriptor = os.memfd_create("stick", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _failing() -> int:
    # Address 0 of a process is mapped nowhere: the kernel itself answers a read there with EIO.
    return os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
