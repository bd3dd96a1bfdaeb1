"""A file that is being written, with the hash of everything in it.

Owns how downloaded or extracted bytes are written to the disk: hashed while written, continued, or restarted. It must
never decide where a whole file goes: `Cache.adopt` does.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType

from appliance.builder.cache.content_store import explain_full_disk
from signing.digest import READ_BYTES, Digest


class Partial:
    """A context manager around one partial file; bytes that it has already are hashed on entering.

    Args:
        path: held by the caller (`Cache.claim`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._state = hashlib.sha256()
        with explain_full_disk(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._file = io.FileIO(descriptor, "r+")

    def __enter__(self) -> Partial:
        while block := self._file.read(READ_BYTES):
            self._state.update(block)
            self.size += len(block)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    @property
    def digest(self) -> Digest:
        """The SHA-256 of all bytes so far."""
        return Digest(self._state.hexdigest())

    def write(self, block: bytes) -> None:
        """Append bytes.

        Raises:
            ApplianceError: the disk is full; what was written before stays.
        """
        left = memoryview(block)
        while left:
            with explain_full_disk(self.path):
                left = left[self._file.write(left) :]
        self._state.update(block)
        self.size += len(block)

    def restart(self) -> None:
        """Remove all bytes."""
        self._file.seek(0)
        self._file.truncate()
        self._state = hashlib.sha256()
        self.size = 0
