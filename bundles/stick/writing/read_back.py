"""Reads a stick back, and asks the kernel whether the bytes came from the device.

Owns the proof. A file that is hashed right may have come from memory, and a fake or worn stick would pass. The kernel
counts what each thread has read from devices: `read_bytes` in `/proc/thread-self/io`.

Rules:
- everything is durable first (`syncfs`); an error of that is final, since a second call would answer that all is well;
- then memory lets go of each file, the file is hashed, and the counter must rise by at least the file's size;
- one thread does all of that for a file, by its own counter: what others read meanwhile is not in it;
- only then every byte was read from the device. Where one file did not make it rise, nothing is claimed. A file system
  in memory, or another program that has the file mapped, are ordinary reasons.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundles.chunks.check import hash_range
from bundles.chunks.chunk import Chunk
from bundles.durability import sync_file_system
from bundles.medium import explain_write
from bundles.oci.layout import Layout
from bundles.parallel import judge_all
from bundles.progress import OnProgress, Progress
from bundles.stick.writing.pace import ALONE, Pace
from signing.errors import DamagedError

_COUNTERS = "/proc/thread-self/io"
_READ = b"\nread_bytes: "


@dataclass(frozen=True)
class ReadBack:
    """What reading a stick back gave.

    Args:
        differing: files that the stick does not give back as they were written, by path.
        size_bytes: how much was compared.
        is_proven: whether the kernel counted every byte as read from the device.
    """

    differing: dict[str, Chunk]
    size_bytes: int
    is_proven: bool


def read_back(stick: Layout, wanted: Mapping[str, Chunk], on_progress: OnProgress, pace: Pace = ALONE) -> ReadBack:
    """Compare files on a stick with what was written, past the memory of this machine.

    Args:
        stick: where everything was written.
        wanted: digest and size of each file, by path.
        on_progress: called with bytes done, in any thread, one call at a time.
        pace: what this stick may use, where others are read at the same time.

    Raises:
        ApplianceError: the file system could not keep what was written (code `write.failed`).
    """
    make_durable(stick.path)
    files = {path: chunk.size for path, chunk in wanted.items()}

    def compare(path: str) -> _Fault | None:
        pace.require_going()
        return compare_file(stick, path, wanted[path])

    task, size_bytes = "reading the stick back", sum(files.values())
    on_progress(Progress(task, 0, size_bytes))
    found = judge_all(files, compare, task, on_progress, threads=pace.threads)
    differing = {path: wanted[path] for path, fault in found.items() if fault.differs}
    return ReadBack(differing, size_bytes, not any(fault.is_unproven for fault in found.values()))


def make_durable(folder: Path) -> None:
    """Have the file system write everything down, once.

    Raises:
        ApplianceError: code `write.failed`. It is final: the kernel reports such an error once, so asking again would
            give a wrong answer.
    """
    try:
        sync_file_system(folder)
    except OSError as error:
        failed = explain_write(error, folder, 0)
        if failed.code == "write.failed":
            failed.hint = (
                "what was written to this stick is not certain: unplug it, plug it in and write it again; "
                "where that fails, too, use another stick"
            )
        raise failed from None


@dataclass(frozen=True)
class _Fault:
    differs: bool
    is_unproven: bool


def compare_file(stick: Layout, path: str, chunk: Chunk) -> _Fault | None:
    """Compare one file with what was written; None where it is right and was read from the device."""
    try:
        descriptor = stick.medium.open(path)
    except (FileNotFoundError, DamagedError):
        return _Fault(differs=True, is_unproven=False)
    try:
        # Memory keeps what is not written down yet: `make_durable` came before.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # Counted from before the kernel is asked to read ahead: what it then reads counts for this thread.
        before = device_bytes()
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        size = os.fstat(descriptor).st_size
        same = size == chunk.size and hash_range(descriptor, 0, size) == chunk.sha256
        after = device_bytes()
    except OSError:  # bytes that cannot be read are not kept
        return _Fault(differs=True, is_unproven=False)
    finally:
        os.close(descriptor)
    proven = before is not None and after is not None and after - before >= chunk.size
    return None if same and proven else _Fault(not same, not proven)


def device_bytes() -> int | None:
    """How many bytes this thread has read from devices since it began; None where the kernel does not say it."""
    with suppress(OSError, ValueError, IndexError), open(_COUNTERS, "rb", buffering=0) as file:
        return int(file.read(4096).split(_READ)[1].split(b"\n")[0])
    return None
