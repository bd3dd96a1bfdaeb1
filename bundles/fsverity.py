"""The fs-verity digest of a file, computed in user space.

Owns the Merkle tree of the kernel's fs-verity: SHA-256, blocks of 4 KiB, no salt. The result equals what
`fsverity digest` prints and what the kernel measures. Enabling and measuring on a host is the host's work.

Source: Linux, Documentation/filesystems/fsverity.rst, "Merkle tree" and "fs-verity descriptor".
"""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from signing.digest import Digest

BLOCK_BYTES = 4096
_HASH_BYTES = 32
_READ_BYTES = 1 << 20


class VerityHasher:
    """Computes the digest of bytes as they stream by. Memory is 32 bytes for each 512 KiB plus one block."""

    def __init__(self) -> None:
        self._size = 0
        self._rest = b""
        self._hashes = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, any number of them. Cost: one SHA-256 over them."""
        view = memoryview(data)
        self._size += len(view)
        if self._rest:
            need = BLOCK_BYTES - len(self._rest)
            self._rest += bytes(view[:need])
            view = view[need:]
            if len(self._rest) < BLOCK_BYTES:
                return
            self._hashes += hashlib.sha256(self._rest).digest()
            self._rest = b""
        full = len(view) - len(view) % BLOCK_BYTES
        self._hashes += _hash_blocks(view[:full])
        self._rest = bytes(view[full:])

    def digest(self) -> Digest:
        """The fs-verity digest of all bytes taken so far."""
        level = self._hashes + (_hash_blocks(memoryview(_pad(self._rest))) if self._rest else b"")
        while len(level) > _HASH_BYTES:
            level = _hash_blocks(memoryview(_pad(bytes(level))))
        root = bytes(level) if level else bytes(_HASH_BYTES)
        # version 1, algorithm 1 (SHA-256), log2(block) 12, no salt, 4 reserved bytes, size, root hash, salt, reserved
        descriptor = struct.pack("<BBBBIQ64s32s144s", 1, 1, 12, 0, 0, self._size, root, b"", b"")
        return Digest(hashlib.sha256(descriptor).hexdigest())


def digest_of(stream: BinaryIO, size: int) -> Digest:
    """The fs-verity digest of the next `size` bytes of a stream.

    Args:
        stream: opened for binary reading, read from where it stands.
        size: bytes to read; fewer are hashed where the stream ends before.
    """
    hasher, left = VerityHasher(), size
    while left:
        block = stream.read(min(_READ_BYTES, left))
        if not block:
            break
        hasher.update(block)
        left -= len(block)
    return hasher.digest()


def _hash_blocks(view: memoryview) -> bytearray:
    sha256 = hashlib.sha256
    out = bytearray()
    for at in range(0, len(view), BLOCK_BYTES):
        out += sha256(view[at : at + BLOCK_BYTES]).digest()
    return out


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_BYTES)
