"""Sticks that lie, break, fill up or are pulled out; seen through the same type as real ones.

A `SimStick` is a `Medium` over a real folder, with faults that a test switches on. Faults of reading hand out real
descriptors with other bytes behind them; faults of writing come out of the very calls that a real medium fails in.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
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
    """

    def __init__(
        self,
        root: Path,
        *,
        capacity_bytes: int | None = None,
        is_read_only: bool = False,
        folds_case: bool = False,
        pull_after_bytes: int | None = None,
    ) -> None:
        super().__init__(root)
        self.capacity_bytes = capacity_bytes
        self.is_read_only = is_read_only
        self.folds_case = folds_case
        self.pull_after_bytes = pull_after_bytes
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

        def medium(root: Path) -> Medium:
            return self if root == self.root else Medium(root)

        with mock.patch.object(bundles.oci.layout, "Medium", medium):
            yield

    def open(self, path: str) -> int:
        """As `Medium.open`, with the faults."""
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


def spread(bundle: Path, *sticks: Path) -> None:
    """Copy a bundle to several sticks: the small files to each, the blobs in turn."""
    for number, stick in enumerate(sticks):
        shutil.copytree(bundle, stick, ignore=shutil.ignore_patterns(BLOBS))
        (stick / BLOBS / "sha256").mkdir(parents=True)
        for blob in _every(sorted((bundle / BLOBS / "sha256").iterdir()), number, len(sticks)):
            shutil.copyfile(blob, stick / BLOBS / "sha256" / blob.name)


def _every(blobs: Sequence[Path], first: int, step: int) -> Sequence[Path]:
    return blobs[first::step]


def _holding(data: bytes) -> int:
    descriptor = os.memfd_create("stick", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _failing() -> int:
    # Address 0 of a process is mapped nowhere: the kernel itself answers a read there with EIO.
    return os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
