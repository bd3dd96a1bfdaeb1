"""SHA-256 digests and the only way to compute them.

Owns the type `Digest`. No other algorithm exists here: a name that is not `sha256` is refused (threat T14).
"""

from __future__ import annotations

import hashlib
import re
from typing import BinaryIO, NewType

from signing.errors import NotTrustedError

Digest = NewType("Digest", str)
"""64 lowercase hexadecimal characters: a SHA-256."""

_HEX = re.compile(r"[0-9a-f]{64}\Z")
READ_BYTES = 1 << 20


def parse_digest(text: object, subject: str) -> Digest:
    """Turn untrusted text into a `Digest`.

    Args:
        text: as a file has it.
        subject: where it stands, for the error.

    Raises:
        NotTrustedError: it is not 64 lowercase hexadecimal characters.
    """
    if not isinstance(text, str) or not _HEX.match(text):
        raise NotTrustedError(
            "digest.malformed", subject, expected="64 lowercase hex characters", found=repr(text)[:80]
        )
    return Digest(text)


def parse_oci_digest(text: object, subject: str) -> Digest:
    """Turn an OCI digest (`sha256:<hex>`) into a `Digest`.

    Raises:
        NotTrustedError: another algorithm, or malformed.
    """
    if not isinstance(text, str) or not text.startswith("sha256:"):
        raise NotTrustedError("digest.algorithm", subject, expected="sha256:<hex>", found=repr(text)[:80])
    return parse_digest(text[len("sha256:") :], subject)


def sha256(data: bytes | bytearray | memoryview) -> Digest:
    """Hash bytes that are in memory."""
    return Digest(hashlib.sha256(data).hexdigest())


def sha256_stream(stream: BinaryIO, size_bytes: int | None = None) -> tuple[Digest, int]:
    """Hash a stream to its end, or at most `size_bytes` of it.

    Args:
        stream: opened for reading in binary mode; read from where it stands.
        size_bytes: stop after so many bytes; None reads to the end.

    Returns:
        The digest, and how many bytes were hashed. Memory is 1 MiB.
    """
    state, done = hashlib.sha256(), 0
    while size_bytes is None or done < size_bytes:
        want = READ_BYTES if size_bytes is None else min(READ_BYTES, size_bytes - done)
        block = stream.read(want)
        if not block:
            break
        state.update(block)
        done += len(block)
    return Digest(state.hexdigest()), done
