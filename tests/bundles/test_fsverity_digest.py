"""The digest that we compute is the one that the kernel measures."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bundles.fsverity_digest import BLOCK_BYTES, VerityHasher, digest_of

SIZES = [0, 1, 4095, 4096, 4097, 128 * 4096, 128 * 4096 + 1, 3_000_000]
EMPTY = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"


def body(size: int) -> bytes:
    return bytes(at * 31 % 253 for at in range(min(size, 100_000))) * (size // 100_000 + 1)


def test_digest_of_an_empty_file_is_the_known_one() -> None:
    assert VerityHasher().digest() == EMPTY


@pytest.mark.parametrize("size", SIZES)
def test_any_split_of_the_bytes_gives_the_same_digest(size: int) -> None:
    data = body(size)[:size]
    whole = digest_of(io.BytesIO(data), size)
    hasher = VerityHasher()
    for at in range(0, size, 1000):
        hasher.update(data[at : at + 1000])
    assert hasher.digest() == whole


def by_the_book(data: bytes) -> str:
    """The whole tree at once: hash every block, then the blocks of hashes, until one is left."""
    level = data
    while True:
        blocks = [level[at : at + BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0") for at in range(0, len(level), BLOCK_BYTES)]
        level = b"".join(hashlib.sha256(block).digest() for block in blocks)
        if len(level) == 32:
            break
    fixed = struct.pack("<BBBBIQ64s32s144s", 1, 1, 12, 0, 0, len(data), level, b"", b"")
    return hashlib.sha256(fixed).hexdigest()


FULL = 128 * 128 * BLOCK_BYTES
"""Two levels of hashes, each filled to the last byte."""


@pytest.mark.parametrize("size", [FULL - 1, FULL, FULL + 1, FULL + 128 * BLOCK_BYTES, FULL + 129 * BLOCK_BYTES + 1])
def test_tree_of_several_levels_is_the_one_of_the_book_and_is_never_held(size: int) -> None:
    data = body(size)[:size]
    hasher, view = VerityHasher(), memoryview(data)
    for at in range(0, size, 5 << 20):
        hasher.update(view[at : at + (5 << 20)])
        assert sum(map(len, hasher._levels)) < 3 * BLOCK_BYTES
    assert hasher.digest() == by_the_book(data) == hasher.digest()


@pytest.mark.parametrize("size", SIZES)
def test_digest_equals_that_of_the_fsverity_program(size: int, tmp_path: Path) -> None:
    program = shutil.which("fsverity")
    if program is None:
        pytest.skip("the program fsverity is not installed (apt-get install fsverity)")
    path = tmp_path / "file"
    path.write_bytes(body(size)[:size])
    printed = subprocess.run(
        [program, "digest", "--compact", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split()[0].removeprefix("sha256:") == digest_of(io.BytesIO(path.read_bytes()), size)
