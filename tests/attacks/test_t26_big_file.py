"""T26: a signature that covers the beginning of a big file, or its length modulo 2^32."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.host.models.served_file import open_verified
from bundles.chunks.boundaries import cut_plain
from bundles.chunks.check import check_file
from bundles.chunks.chunk import MAX_CHUNK_BYTES, Chunk
from bundles.contents import contents_json
from bundles.contents.contents import File
from bundles.contents.json_object import JsonObject
from signing.digest import sha256
from signing.errors import DamagedError
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import Signed

ROW = row(26)
SIZE = 5 << 30
ZEROS = {size: sha256(bytes(size)) for size in (MAX_CHUNK_BYTES,)}
CHUNKS = tuple(Chunk(ZEROS[size], size) for size in cut_plain(SIZE))
PATH = "adapters/adapter.txt"


def sign_big(stick: Stick, chunks: tuple[Chunk, ...]) -> None:
    """Sign a file of 5 GiB, made of these chunks."""

    def change(contents: Signed) -> None:
        [file] = [file for file in contents["files"] if file["path"] == PATH]
        file |= {"size": SIZE, "chunks": [[chunk.sha256, chunk.size] for chunk in chunks]}

    stick.forge(change)
    for chunk in set(chunks):
        stick.blob(chunk.sha256).touch()
        os.truncate(stick.blob(chunk.sha256), chunk.size)


def sparse(folder: Path, evil_at: int | None = None) -> Path:
    path = folder / "big"
    path.touch()
    os.truncate(path, SIZE)
    if evil_at is not None:
        with path.open("r+b") as file:
            file.seek(evil_at)
            file.write(b"E")
    return path


def test_unattacked_five_gib_are_covered_by_a_signature_over_kilobytes(stick: Stick) -> None:
    sign_big(stick, CHUNKS)
    found = stick.verify().value
    assert found.contents.by_path[PATH].size == SIZE
    assert found.manifest_size < 1 << 16


@pytest.mark.parametrize("covered", [SIZE % (1 << 32), 1 << 31, SIZE - MAX_CHUNK_BYTES])
def test_attacked_with_a_signature_over_part_of_it(stick: Stick, covered: int) -> None:
    sign_big(stick, CHUNKS[: covered // MAX_CHUNK_BYTES])
    refused(ROW, stick.verify, "contents.refused", "contents.json files[0]")
    assert stick.command().code == 4


def test_attacked_beyond_what_a_blob_may_hold(stick: Stick) -> None:
    """One chunk of 4 GiB and 64 MiB, which 32 bits would call 64 MiB."""
    sign_big(stick, (Chunk(ZEROS[MAX_CHUNK_BYTES], (1 << 32) + MAX_CHUNK_BYTES),))
    refused(ROW, stick.verify, "contents.refused", "contents.json files[0]")


@pytest.mark.ci
def test_attacked_by_one_byte_beyond_four_gib(tmp_path: Path) -> None:
    file = File(PATH, "adapter", 0o644, SIZE, sha256(b""), CHUNKS)
    with pytest.raises(DamagedError) as caught:
        open_verified(file, sparse(tmp_path, evil_at=(4 << 30) + 1), available_bytes=0)
    assert caught.value.subject == PATH


def test_unguarded_what_lies_behind_the_covered_part_is_anybodys(stick: Stick, tmp_path: Path) -> None:
    def without_a_sum(value: JsonObject) -> File:
        path, kind = value.text("path"), value.text("kind")
        verity = value.digest("fsverity") if value.has("fsverity") else None
        chunks = contents_json._chunks(value)
        return File(path, kind, 0o644, value.integer("size"), value.digest("sha256"), chunks, verity)

    sign_big(stick, CHUNKS[:1])
    with guard_off(ROW.guard, without_a_sum):
        file = stick.verify().value.contents.by_path[PATH]
    check_file(file, sparse(tmp_path, evil_at=SIZE - 1))
