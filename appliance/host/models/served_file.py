"""Opening a model so that the bytes that are served are the bytes that were signed (threats T16, T17).

Owns the way to the highest level that this host gives (`appliance.host.models.levels`). It must never hash a path and
then pass the path on: what is checked and what is served are one open descriptor.

Rules:
- a seal that is measured on the descriptor and equals the signed digest proves the bytes: none of them is read;
- without it every byte is compared, once;
- a level below the minimum of the site is refused before a byte is read where that is known by then.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from appliance.host.layout.places import REPAIR_HINT
from appliance.host.machine import cgroups
from appliance.host.models.levels import ANY, E1, E2, E4, is_enough, too_low
from appliance.host.models.seal import measure
from bundles.chunks.check import changed, hash_range, placed
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.parallel import judge_all
from bundles.progress import OnProgress, ignore
from signing.errors import DamagedError, NotTrustedError

__all__ = ["E1", "E2", "E4", "MARGIN_BYTES", "ServedFile", "has_signed_seal", "memory_available_bytes", "open_verified"]

MARGIN_BYTES = 1 << 30
"""Memory that must stay free beside a sealed copy, for the engine's own buffers and the rest of the machine."""

_READ_BYTES = 1 << 20
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL = 0x0008

HashChunk = Callable[[int, Chunk], str]


@dataclass(slots=True)
class ServedFile:
    """A file, open for reading, whose bytes were compared with the signed ones.

    Args:
        fd: the descriptor for the process that serves it.
        level: `E1`, `E2` or `E4`.
    """

    fd: int
    level: str

    @property
    def path_for_child(self) -> str:
        """The path under which a child that inherits the descriptor opens it."""
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        """Close the descriptor; child processes keep theirs. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> ServedFile:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()


def open_verified(
    file: File,
    path: Path,
    on_progress: OnProgress = ignore,
    *,
    available_bytes: int | None = None,
    min_level: str = ANY,
) -> ServedFile:
    """Open a file whose bytes are the signed ones: by its seal, or by reading and comparing each byte once.

    Args:
        file: verified.
        path: untrusted; opened without following a link.
        on_progress: called with bytes done.
        available_bytes: memory that may be used; without a seal it decides the level. None reads it from the machine.
        min_level: the lowest level that the site allows for it.

    Returns:
        The descriptor and the level; the caller closes it.

    Raises:
        DamagedError: code `contents.file-changed`, naming the file of the bundle and the bytes that differ.
        NotTrustedError: the path is no regular file.
        HostUnfitError: code `model.level`: this host does not give the level that the site demands.
    """
    source = _open_regular(file, path)
    try:
        if has_signed_seal(file, source):
            return ServedFile(source, E4)
        if not is_enough(E2, min_level):
            raise too_low(file.path, min_level, "no seal, or another one than the signed contents list")
        copy = _copy_where_it_fits(file, source, available_bytes, on_progress)
        if copy is not None:
            os.close(source)
            return ServedFile(copy, E2)
        if not is_enough(E1, min_level):
            raise too_low(file.path, min_level, f"no memory for a copy of {file.size} bytes")
        _compare(file, lambda start, chunk: hash_range(source, start, chunk.size), on_progress)
        return ServedFile(source, E1)
    except BaseException:
        os.close(source)
        raise


def has_signed_seal(file: File, descriptor: int) -> bool:
    """Whether the kernel refuses every page of an open file that is not the signed one. Reads no byte of it.

    Args:
        file: verified.
        descriptor: of the file on this host.
    """
    try:
        return file.fsverity is not None and measure(descriptor) == file.fsverity
    except OSError:
        return False  # the bytes decide


def _copy_where_it_fits(file: File, source: int, available_bytes: int | None, on_progress: OnProgress) -> int | None:
    available = memory_available_bytes() if available_bytes is None else available_bytes
    return _seal_copy(file, source, on_progress) if file.size + MARGIN_BYTES <= available else None


def memory_available_bytes() -> int:
    """Read how much memory this process could still use without swapping, by the machine and its control groups."""
    free = 0
    for line in (cgroups.PROC / "meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    left = cgroups.memory_left_bytes()
    return free if left is None else min(free, left)


def _open_regular(file: File, path: Path) -> int:
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _differs(file, f"{file.size} bytes", f"no file at {path}") from None
    except OSError as error:
        raise _hostile(file, error.strerror or "") from None
    status = os.fstat(source)
    if status.st_mode & 0o170000 != 0o100000:
        os.close(source)
        raise _hostile(file, "something else")
    if status.st_size != file.size:
        os.close(source)
        raise _differs(file, f"{file.size} bytes", f"{status.st_size} bytes")
    return source


def _seal_copy(file: File, source: int, on_progress: OnProgress) -> int | None:
    """Copy a file into sealed memory while hashing; None where the machine has not enough memory of that kind."""
    try:
        memory = _memory_file(file.path.rpartition("/")[2][:200])
    except OSError:
        return None
    try:
        os.ftruncate(memory, file.size)
        _compare(file, lambda start, chunk: _copy_chunk(source, memory, start, chunk.size), on_progress)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOMEM, errno.ENOSPC):
            raise
        return None
    finally:
        os.close(memory)


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)  # Linux before 6.3 does not know the flag


def _copy_chunk(source: int, memory: int, start: int, size: int) -> str:
    state, buffer = hashlib.sha256(), memoryview(bytearray(min(_READ_BYTES, size)))
    while size:
        count = os.preadv(source, [buffer[:size]], start)
        if count == 0:
            break
        state.update(buffer[:count])
        written = 0
        while written < count:
            written += os.pwrite(memory, buffer[written:count], start + written)
        start += count
        size -= count
    return state.hexdigest()


def _compare(file: File, hash_chunk: HashChunk, on_progress: OnProgress) -> None:
    def differs(place: tuple[int, Chunk]) -> str | None:
        found = _hash(hash_chunk, *place)
        return None if found == place[1].sha256 else found

    places = {place: place[1].size for place in placed(file)}
    differing = judge_all(places, differs, f"verifying {file.path}", on_progress)
    if differing:
        raise _changed(file, differing)


def _hash(hash_chunk: HashChunk, start: int, chunk: Chunk) -> str:
    try:
        return hash_chunk(start, chunk)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.ENOSPC):
            raise
        return f"unreadable ({error.strerror})"


def _changed(file: File, places: Mapping[tuple[int, Chunk], str]) -> DamagedError:
    (start, chunk), found = next(iter(places.items()))
    more = f", and {len(places) - 1} more places" if len(places) > 1 else ""
    span = f"bytes {start} to {start + chunk.size - 1}"
    return _differs(file, f"{span} with sha256 {chunk.sha256}", f"sha256 {found}{more}")


def _differs(file: File, expected: str, found: str) -> DamagedError:
    error = changed(file, expected, found)
    error.hint = REPAIR_HINT
    return error


def _hostile(file: File, found: str) -> NotTrustedError:
    return NotTrustedError(
        "file.hostile",
        file.path,
        expected="a regular file",
        found=found,
        hint=f"find out who put it there; then {REPAIR_HINT}",
    )
