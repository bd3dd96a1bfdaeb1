"""T113: a parity from which other bytes are rebuilt than the lost stick had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from bundles.oci.layout import Layout
from bundles.parity.source import ParitySource
from bundles.parity.streams import LIST_FILE, plan_parity, write_parity
from signing.digest import sha256
from signing.strictjson import to_file
from tests.attacks.harness import guard_off, refused, row

ROW = row(113)
LOST, OTHER = b"the lost stick" * 100, b"the other stick" * 90
CHUNKS = {sha256(data): Chunk(sha256(data), len(data)) for data in (LOST, OTHER)}
WANTED = CHUNKS[sha256(LOST)]
FILE = File("models/m/model.gguf", "model", 0o644, len(LOST), sha256(LOST), (WANTED,))
BLOB = f"blobs/sha256/{WANTED.sha256}"


class BlobFolder:
    """A stick in a folder, with some blobs; a `ChunkSource`."""

    def __init__(self, folder: Path, *blobs: bytes) -> None:
        self.layout = Layout(folder)
        for data in blobs:
            self.layout.medium.write(f"blobs/sha256/{sha256(data)}", data)

    def holds(self, chunk: Chunk) -> bool:
        return (self.layout.path / f"blobs/sha256/{chunk.sha256}").exists()

    def open_chunk(self, chunk: Chunk) -> int:
        return self.layout.open_chunk(chunk)


@pytest.fixture
def parity(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "parity")
    layout.path.mkdir()
    whole = BlobFolder(tmp_path / "source", LOST, OTHER)
    write_parity(plan_parity([[chunk] for chunk in CHUNKS.values()]), whole.open_chunk, layout)
    return layout


def rebuild(parity: Layout, other: BlobFolder) -> bytes:
    descriptor = ParitySource(lambda: [parity], other).open_chunk(WANTED)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def forge(parity: Layout) -> None:
    piece = parity.path / "parity/000001.xor"
    piece.write_bytes(bytes(byte ^ 7 for byte in piece.read_bytes()))


def test_unattacked_lost_blob_is_rebuilt(parity: Layout, tmp_path: Path) -> None:
    assert rebuild(parity, BlobFolder(tmp_path / "other", OTHER)) == LOST


def test_attacked_by_other_bytes_in_the_parity(parity: Layout, tmp_path: Path) -> None:
    forge(parity)
    refused(ROW, lambda: rebuild(parity, BlobFolder(tmp_path / "other", OTHER)), "parity.differs", BLOB)


def test_attacked_by_other_bytes_on_the_other_stick(parity: Layout, tmp_path: Path) -> None:
    other = BlobFolder(tmp_path / "other", OTHER)
    (tmp_path / f"other/blobs/sha256/{sha256(OTHER)}").write_bytes(b"E" * len(OTHER))
    refused(ROW, lambda: rebuild(parity, other), "parity.differs", BLOB)


def test_attacked_by_a_list_with_the_streams_exchanged(parity: Layout, tmp_path: Path) -> None:
    streams = [[[WANTED.sha256, len(LOST)], [sha256(OTHER), len(OTHER)]], [["0" * 64, 1]]]
    (parity.path / LIST_FILE).write_bytes(to_file({"streams": streams}))
    refused(ROW, lambda: rebuild(parity, BlobFolder(tmp_path / "other", OTHER)), "blob.missing", BLOB)


def test_unguarded_forged_bytes_meet_the_copy_s_own_hash(parity: Layout, tmp_path: Path) -> None:
    forge(parity)
    other = BlobFolder(tmp_path / "other", OTHER)
    with guard_off(ROW.guard, lambda *_: None):
        assert rebuild(parity, other) != LOST
        source = ParitySource(lambda: [parity], other)
        refused(ROW, lambda: copy_file(FILE, source.open_chunk, tmp_path / "model"), "contents.file-changed", FILE.path)
    assert not (tmp_path / "model").exists()
