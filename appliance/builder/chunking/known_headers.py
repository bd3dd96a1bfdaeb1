"""GGUF headers that this process has parsed already: a build judges a model first, and packs it later.

Owns when a parsed header is used again. It must never trust a file's times alone.

Rules:
- a header is used again for the same file only, and only where the bytes before its weights have the same digest;
- those bytes and the file's size are all that a header is made from.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from appliance.file_state import file_state
from bundles.gguf.header import GgufHeader, read_header
from signing.digest import Digest, sha256

_known: dict[tuple[int, ...], tuple[Digest, GgufHeader]] = {}


def parse_header(stream: BinaryIO, subject: str) -> tuple[GgufHeader, bytes]:
    """Parse the header of a file, and keep it.

    Args:
        stream: a file of this machine, opened for binary reading; untrusted.
        subject: the file's name, for errors.

    Returns:
        The header, and the bytes before the weights.

    Raises:
        NotTrustedError: as `bundles.gguf.header.read_header`.
    """
    status = os.fstat(stream.fileno())
    stream.seek(0)
    header = read_header(stream, status.st_size, subject)
    stream.seek(0)
    head = stream.read(header.data_start)
    _known[file_state(status)] = sha256(head), header
    return header, head


def known_header(stream: BinaryIO) -> GgufHeader | None:
    """The header of a file, where `parse_header` kept it and its bytes are the same; else None.

    Args:
        stream: as for `parse_header`.
    """
    digest, header = _known.get(file_state(os.fstat(stream.fileno())), (None, None))
    if header is None:
        return None
    stream.seek(0)
    return header if sha256(stream.read(header.data_start)) == digest else None
