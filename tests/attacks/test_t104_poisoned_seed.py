"""T104: a file of another release, from which an upgrade copies, has other bytes than were signed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import Place, copy_files
from bundles.chunks.source import Seed, Seeds
from bundles.chunks.work_file import CopyJob
from bundles.contents.contents import File
from signing.digest import sha256
from signing.errors import DamagedError
from tests.attacks.harness import guard_off, refused, row

ROW = row(104)
PARTS = (b"first" * 1000, b"second" * 1000)
DATA = b"".join(PARTS)
CHUNKS = tuple(Chunk(sha256(part), len(part)) for part in PARTS)
FILE = File("models/m/model.gguf", "model", 0o644, len(DATA), sha256(DATA), CHUNKS)


class Medium:
    """A medium that has every chunk, or none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def holds(self, _chunk: Chunk) -> bool:
        return self.folder is not None

    def open_chunk(self, chunk: Chunk) -> int:
        if self.folder is None:
            raise DamagedError("blob.missing", FILE.path)
        path = self.folder / chunk.sha256
        path.write_bytes(PARTS[CHUNKS.index(chunk)])
        return os.open(path, os.O_RDONLY)


EMPTY = Medium(None)


def seeds_at(path: Path) -> Seeds:
    return {CHUNKS[0].sha256: (Seed(path, 0),), CHUNKS[1].sha256: (Seed(path, len(PARTS[0])),)}


def job(folder: Path) -> CopyJob:
    return CopyJob(FILE, folder / "model.gguf")


def test_unattacked_release_gives_every_byte_without_the_medium(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(DATA)
    assert copy_files([job(tmp_path)], EMPTY, seeds_at(tmp_path / "old")).medium_bytes == 0
    assert (tmp_path / "model.gguf").read_bytes() == DATA


@pytest.mark.parametrize("at", [0, len(PARTS[0]), len(DATA) - 1])
def test_attacked_by_one_wrong_byte(tmp_path: Path, at: int) -> None:
    (tmp_path / "old").write_bytes(DATA[:at] + b"E" + DATA[at + 1 :])
    refused(ROW, lambda: copy_files([job(tmp_path)], EMPTY, seeds_at(tmp_path / "old")), "blob.missing", FILE.path)
    assert not (tmp_path / "model.gguf").exists()
    count = copy_files([job(tmp_path)], Medium(tmp_path), seeds_at(tmp_path / "old"))
    assert count.medium_bytes == len(PARTS[0] if at < len(PARTS[0]) else PARTS[1])
    assert (tmp_path / "model.gguf").read_bytes() == DATA


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "shorter", "nothing"])
def test_attacked_by_something_else_in_its_place(tmp_path: Path, kind: str) -> None:
    old = tmp_path / "old"
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(DATA)
        old.symlink_to("elsewhere")
    elif kind == "fifo":
        os.mkfifo(old)
    elif kind == "folder":
        old.mkdir()
    elif kind == "shorter":
        old.write_bytes(PARTS[0][:-1])
    refused(ROW, lambda: copy_files([job(tmp_path)], EMPTY, seeds_at(old)), "blob.missing", FILE.path)
    copy_files([job(tmp_path)], Medium(tmp_path), seeds_at(old))
    assert (tmp_path / "model.gguf").read_bytes() == DATA


def test_unguarded_the_other_bytes_become_the_file(tmp_path: Path) -> None:
    def trust(chunk: Chunk, origin: int, start: int, place: Place) -> bool:
        os.pwrite(place[0].descriptor, os.pread(origin, chunk.size, start), place[1])
        return True

    (tmp_path / "old").write_bytes(b"E" * len(DATA))
    with guard_off(ROW.guard, trust):
        copy_files([job(tmp_path)], EMPTY, seeds_at(tmp_path / "old"))
    assert (tmp_path / "model.gguf").read_bytes() == b"E" * len(DATA)
