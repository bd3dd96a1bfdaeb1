"""A chunk that lies around 4 GiB of its file arrives there, and is found there again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles.chunks.check import hash_range
from bundles.chunks.chunk import Chunk
from bundles.chunks.clone import clone_range
from bundles.chunks.transfer import take, transfer, writing_to
from bundles.durability import start_writing_range, wait_for_range
from signing.digest import sha256
from tests.sim.sets.stick_sets import StickSet, deal, make_files

DATA = os.urandom(3 << 20)
CHUNK = Chunk(sha256(DATA), len(DATA))
AROUND = [(1 << 32) + more for more in (-len(DATA), -len(DATA) // 2, -1, 0, 1, 4096)]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file whose first four gigabytes are a hole."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("at", AROUND)
def test_chunk_from_a_stick_is_written_at_its_offset(file: int, tmp_path: Path, at: int) -> None:
    of = make_files([DATA], len(DATA))
    stick = StickSet(deal(tmp_path, of, {CHUNK.sha256: (0,)}, 1), 1)
    take(stick.open_chunk, CHUNK, writing_to(file, at), "file")
    start_writing_range(file, at, len(DATA))
    wait_for_range(file, at, len(DATA))
    assert os.fstat(file).st_size == at + len(DATA)
    assert hash_range(file, at, len(DATA)) == CHUNK.sha256
    assert os.fstat(file).st_blocks * 512 < 2 * len(DATA)


@pytest.mark.parametrize("at", AROUND)
def test_chunk_is_copied_and_cloned_from_its_offset(file: int, tmp_path: Path, at: int) -> None:
    os.pwrite(file, DATA, at)
    copy = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    try:
        if not clone_range(file, at, len(DATA), copy, at):
            transfer(CHUNK, file, at, writing_to(copy, at), "file")
        assert hash_range(copy, at, len(DATA)) == CHUNK.sha256
        assert os.fstat(copy).st_size == at + len(DATA)
    finally:
        os.close(copy)
