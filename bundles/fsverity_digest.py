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
    """Computes the digest of bytes as they stream by. Memory is a block for each level of the tree, whatever the size.

    A level holds the hashes whose block in the level above is not full yet.
    """

    def __init__(self) -> None:
        self._size = 0
        self._rest = b""
        self._levels = [bytearray()]

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
            self._add(hashlib.sha256(self._rest).digest())
            self._rest = b""
        full = len(view) - len(view) % BLOCK_BYTES
        for at in range(0, full, _READ_BYTES):
            self._add(_hash_blocks(view[at : min(at + _READ_BYTES, full)]))
        self._rest = bytes(view[full:])

    def digest(self) -> Digest:
        """The fs-verity digest of all bytes taken so far."""
        carry = _hash_blocks(memoryview(_pad(self._rest))) if self._rest else b""
        for level in self._levels[:-1]:
            waiting = bytes(level + carry)
            carry = _hash_blocks(memoryview(_pad(waiting))) if waiting else b""
        top = self._levels[-1] + carry
        while len(top) > _HASH_BYTES:
            top = _hash_blocks(memoryview(_pad(bytes(top))))
        root = bytes(top) if top else bytes(_HASH_BYTES)
        # version 1, algorithm 1 (SHA-256), log2(block) 12, no salt, 4 reserved bytes, size, root hash, salt, reserved
        descriptor = struct.pack("<BBBBIQ64s32s144s", 1, 1, 12, 0, 0, self._size, root, b"", b"")
        return Digest(hashlib.sha256(descriptor).hexdigest())

    def _add(self, hashes: bytes | bytearray) -> None:
        at = 0
        while hashes:
            level = self._levels[at]
            level += hashes
            full = len(level) - len(level) % BLOCK_BYTES
            hashes = _hash_blocks(memoryview(bytes(level[:full])))
            del level[:full]
            at += 1
            if hashes and at == len(self._levels):
                self._levels.append(bytearray())


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
