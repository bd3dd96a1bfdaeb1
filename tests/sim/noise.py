"""Bytes without end that look random and are the same for the same seed, as fast as a disk: no two parts are equal.

A file of zeros would collapse into one chunk and prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK_BYTES = 4 << 20


def noise(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes in blocks of at most 4 MiB: AES in counter mode, the seed as its key."""
    stream = Cipher(algorithms.AES(seed.to_bytes(16, "big")), modes.CTR(bytes(16))).encryptor()
    while size > 0:
        part = min(BLOCK_BYTES, size)
        yield stream.update(bytes(part))
        size -= part
