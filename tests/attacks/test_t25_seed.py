"""T25: bytes that a copy could take over from the host itself are not the ones that were signed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles.chunks import work_file
from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from bundles.delta import missing
from signing.digest import sha256
from signing.errors import DamagedError
from tests.attacks.harness import AGREES, guard_off, refused, row

ROW = row(25)
PARTS = (b"first" * 1000, b"second" * 1000)
DATA = b"".join(PARTS)
FILE = File(
    "models/m/model.gguf",
    "model",
    0o644,
    len(DATA),
    sha256(DATA),
    tuple(Chunk(sha256(part), len(part)) for part in PARTS),
)


def seed(folder: Path, data: bytes) -> Path:
    """What an interrupted copy left, or seems to have left; the medium holds nothing any more."""
    destination = folder / "model.gguf"
    destination.with_name("model.gguf.partial").write_bytes(data)
    return destination


def empty_medium(_chunk: Chunk) -> int:
    raise DamagedError("blob.missing", FILE.path)


def medium(folder: Path) -> Callable[[Chunk], int]:
    """A medium with every chunk."""

    def open_chunk(chunk: Chunk) -> int:
        path = folder / chunk.sha256
        path.write_bytes(next(part for part in PARTS if sha256(part) == chunk.sha256))
        return os.open(path, os.O_RDONLY)

    return open_chunk


def test_unattacked_right_seed_is_taken_over_without_the_medium(tmp_path: Path) -> None:
    destination = seed(tmp_path, DATA)
    assert copy_file(FILE, empty_medium, destination)
    assert destination.read_bytes() == DATA


@pytest.mark.parametrize("at", [0, len(PARTS[0]), len(DATA) - 1])
def test_attacked_by_one_wrong_byte_in_the_seed(tmp_path: Path, at: int) -> None:
    destination = seed(tmp_path, DATA[:at] + b"E" + DATA[at + 1 :])
    refused(ROW, lambda: copy_file(FILE, empty_medium, destination), "blob.missing", FILE.path)
    assert not destination.exists()


@pytest.mark.parametrize("at", [0, len(PARTS[0]), len(DATA) - 1])
def test_attacked_seed_is_replaced_from_the_medium(tmp_path: Path, at: int) -> None:
    destination = seed(tmp_path, DATA[:at] + b"E" + DATA[at + 1 :] + b"and more")
    assert copy_file(FILE, medium(tmp_path), destination)
    assert destination.read_bytes() == DATA


@pytest.mark.parametrize("claimed", [PARTS[:1], PARTS[1:], PARTS], ids=["first", "second", "both"])
def test_attacked_by_a_claim_to_hold_what_is_not_there(tmp_path: Path, claimed: tuple[bytes, ...]) -> None:
    """A forged receipt can only make a delta too small: the copy ends where a byte is missing."""
    held = frozenset(sha256(part) for part in claimed)
    [entry] = missing((FILE,), held)
    assert {chunk.sha256 for chunk in entry.blobs} == {chunk.sha256 for chunk in FILE.chunks} - held
    carry = medium(tmp_path)

    def stick(chunk: Chunk) -> int:
        return carry(chunk) if chunk in entry.blobs else empty_medium(chunk)

    refused(ROW, lambda: copy_file(FILE, stick, tmp_path / "model.gguf"), "blob.missing", FILE.path)
    assert not (tmp_path / "model.gguf").exists()


def test_attacked_below_its_seal_what_the_kernel_refuses_is_copied_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with a seal of fs-verity whose block was changed on the device: reading that block is an error."""
    destination = tmp_path / "model.gguf"
    destination.write_bytes(DATA)

    def refused_by_the_kernel(_descriptor: int, start: int, size: int) -> str:
        if start:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sha256(DATA[start : start + size])

    before = destination.stat().st_ino
    monkeypatch.setattr(work_file, "hash_range", refused_by_the_kernel)
    assert copy_file(FILE, medium(tmp_path), destination)
    assert destination.read_bytes() == DATA
    assert destination.stat().st_ino != before


def test_unguarded_the_poisoned_seed_becomes_the_file(tmp_path: Path) -> None:
    destination = seed(tmp_path, b"E" * len(DATA))
    with guard_off(ROW.guard, lambda *_: AGREES):
        copy_file(FILE, empty_medium, destination)
    assert destination.read_bytes() == b"E" * len(DATA)
