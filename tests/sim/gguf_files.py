"""Valid and hostile GGUF files of any size; what is big is sparse, so that 5 GiB take no room on a disk."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

TEXT, ARRAY, U32, F32 = 8, 9, 4, 0
ALIGNMENT = 32


def text(value: str) -> bytes:
    """A GGUF string."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def string_key(name: str, value: str) -> bytes:
    """A GGUF key with a text."""
    return text(name) + struct.pack("<I", TEXT) + text(value)


def tensor_info(name: str, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """One line of a GGUF tensor table."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


ARCH = string_key("general.architecture", "llama")


def head(keys: int = 1, tensors: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    """The first 24 bytes: what the file claims to hold."""
    return magic + struct.pack("<IQQ", version, tensors, keys)


def header(tensors: Sequence[tuple[str, int]], keys: Sequence[bytes] = ()) -> tuple[bytes, list[int], int]:
    """Everything before the weights.

    Args:
        tensors: name and number of F32 weights.
        keys: made by `string_key` and the like; `general.architecture` is added.

    Returns:
        The bytes, padded; where each tensor starts in the file; and the file's size.
    """
    infos, offset, offsets = b"", 0, []
    for name, weights in tensors:
        infos += tensor_info(name, [weights], F32, offset)
        offsets.append(offset)
        offset += _aligned(weights * 4)
    data = head(1 + len(keys), len(tensors)) + ARCH + b"".join(keys) + infos
    data += bytes(_aligned(len(data)) - len(data))
    return data, [len(data) + start for start in offsets], len(data) + offset


def gguf(
    keys: Sequence[bytes] = (),
    tensors: Sequence[tuple[str, int]] = (("blk.0.a", 64), ("blk.0.b", 32)),
    tail: bytes = b"",
) -> bytes:
    """A valid GGUF in memory.

    Args:
        keys: as for `header`.
        tensors: as for `header`; each byte of the data is distinct enough to hash differently.
        tail: what follows the last tensor.
    """
    data, starts, size = header(tensors, keys)
    whole = bytearray(data) + bytes(size - len(data))
    for number, ((_, weights), start) in enumerate(zip(tensors, starts, strict=True)):
        pattern = bytes((at * 7 + number) % 251 for at in range(251))
        whole[start : start + weights * 4] = (pattern * (weights * 4 // 251 + 1))[: weights * 4]
    return bytes(whole) + tail


def write_sparse(
    path: Path,
    tensors: Sequence[tuple[str, int]],
    keys: Sequence[bytes] = (),
    marks: Mapping[int, bytes] | None = None,
) -> int:
    """Write a valid GGUF whose weights are holes.

    Args:
        path: of the file.
        tensors, keys: as for `header`.
        marks: bytes that are really written, by their offset in the file.

    Returns:
        The file's size in bytes.
    """
    data, _, size = header(tensors, keys)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
        for at, mark in (marks or {}).items():
            file.seek(at)
            file.write(mark)
    return size


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT


_TWO = head(tensors=2) + ARCH + tensor_info("t", [8], F32, 0)

HOSTILE: dict[str, bytes] = {
    "other magic": head(magic=b"GGML") + ARCH,
    "version 1": head(version=1) + ARCH,
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + ARCH,
    "a million million keys": head(keys=1 << 40),
    "a million million tensors": head(tensors=1 << 40) + ARCH,
    "a key name of 2^63 bytes": head() + struct.pack("<Q", 1 << 63),
    "a text of 4 GiB": head() + text("general.architecture") + struct.pack("<IQ", TEXT, 1 << 32),
    "an array of 2^60 numbers": head(2) + ARCH + text("a") + struct.pack("<IIQ", ARRAY, U32, 1 << 60),
    "an array of arrays": head(2) + ARCH + text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1),
    "an unknown value type": head(2) + ARCH + text("a") + struct.pack("<I", 99),
    "the same key twice": head(2) + ARCH + ARCH,
    "no architecture": head() + string_key("general.name", "x"),
    "a name with a newline": head(2) + ARCH + string_key("a\nb", "x"),
    "an alignment of 3": head(2) + ARCH + text("general.alignment") + struct.pack("<II", U32, 3),
    "an alignment of 0": head(2) + ARCH + text("general.alignment") + struct.pack("<II", U32, 0),
    "five dimensions": head(tensors=1) + ARCH + tensor_info("t", [1, 1, 1, 1, 1], F32, 0),
    "no dimensions": head(tensors=1) + ARCH + tensor_info("t", [], F32, 0),
    "dimensions that overflow": head(tensors=1) + ARCH + tensor_info("t", [1 << 40, 1 << 40], F32, 0),
    "a dimension of zero": head(tensors=1) + ARCH + tensor_info("t", [0], F32, 0),
    "an unknown tensor type": head(tensors=1) + ARCH + tensor_info("t", [32], 999, 0) + bytes(256),
    "half a block": head(tensors=1) + ARCH + tensor_info("t", [33], 2, 0) + bytes(256),
    "an offset into the past": _TWO + tensor_info("u", [8], F32, 0) + bytes(512),
    "a gap between tensors": head(tensors=1) + ARCH + tensor_info("t", [8], F32, 64) + bytes(512),
    "two tensors of one name": _TWO + tensor_info("t", [8], F32, 32) + bytes(512),
    "tensors past the end of the file": head(tensors=1) + ARCH + tensor_info("t", [1 << 20], F32, 0),
    "a file that ends in the header": gguf()[:40],
    "nothing": b"",
}
"""Files that no reader may take, by what is wrong with them."""
