"""A file of a bundle can be read without assembling it, and no byte of a wrong blob comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.stream import ChunkStream
from bundles.contents.contents import File
from bundles.oci.layout import Layout
from signing.digest import sha256
from signing.errors import DamagedError

DATA = bytes(range(250)) * 8
PARTS = (DATA[:700], DATA[700:701], DATA[701:])


def stream(folder: Path) -> ChunkStream:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for part in PARTS:
        (blobs / sha256(part)).write_bytes(part)
    chunks = tuple(Chunk(sha256(part), len(part)) for part in PARTS)
    return ChunkStream(Layout(folder), File("m/x.gguf", "model", 0o644, len(DATA), sha256(DATA), chunks))


@pytest.mark.parametrize("step", [1, 7, 699, 700, 701, 702, 5000])
def test_bytes_come_in_order_whatever_is_asked_for(tmp_path: Path, step: int) -> None:
    found, read = stream(tmp_path), b""
    while part := found.read(step):
        assert len(part) == min(step, len(DATA) - len(read))
        read += part
    assert read == DATA
    assert stream(tmp_path / "again").read() == DATA


@pytest.mark.parametrize("change", [lambda part: part[:-1] + b"!", lambda part: part + b"!", lambda part: part[:-1]])
def test_blob_that_differs_is_damaged_before_any_of_it_is_used(tmp_path: Path, change: object) -> None:
    assert callable(change)
    found = stream(tmp_path)
    (tmp_path / "blobs" / "sha256" / sha256(PARTS[2])).write_bytes(change(PARTS[2]))
    assert found.read(701) == DATA[:701]
    with pytest.raises(DamagedError):
        found.read(1)


def test_blob_that_is_not_there_is_damaged(tmp_path: Path) -> None:
    found = stream(tmp_path)
    (tmp_path / "blobs" / "sha256" / sha256(PARTS[0])).unlink()
    with pytest.raises(DamagedError):
        found.read(1)


def test_some_bytes_end_where_a_blob_ends_and_the_next_blob_is_not_read(tmp_path: Path) -> None:
    found = stream(tmp_path)
    (tmp_path / "blobs" / "sha256" / sha256(PARTS[1])).unlink()
    assert found.read_some(5000) == PARTS[0]
    with pytest.raises(DamagedError):
        found.read_some(1)
