"""T28: a GGUF header that makes a reader allocate, overflow or look outside the file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

import pytest

from appliance.builder.chunking.bundle_writer import BundleWriter
from appliance.builder.chunking.chunker import Source, store
from bundles.gguf.header import GgufHeader
from tests.attacks.harness import guard_off, refused, row
from tests.sim.gguf_files import HOSTILE, gguf, write_sparse

ROW = row(28)
PATH = "models/m/model.gguf"


def pack(folder: Path, data: bytes) -> int:
    """Put a model into a bundle, as a build does before any other program sees it; gives its size."""
    model = folder / "model.gguf"
    model.write_bytes(data)
    writer = BundleWriter(folder / "dist")
    return store(Source(PATH, "model", file=model), writer)[0].size


def test_unattacked_model_is_packed(tmp_path: Path) -> None:
    assert pack(tmp_path, gguf()) == len(gguf())


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_attacked_by_a_header(tmp_path: Path, data: bytes) -> None:
    refused(ROW, lambda: pack(tmp_path, data), "gguf.refused", PATH)


def test_attacked_by_a_small_file_that_claims_to_be_huge_costs_no_time(tmp_path: Path) -> None:
    write_sparse(tmp_path / "big.gguf", [("blk.0.a", 1 << 40)])
    with (tmp_path / "big.gguf").open("rb") as file:
        header = file.read(4096)
    began = time.process_time()
    refused(ROW, lambda: pack(tmp_path, header), "gguf.refused", PATH)
    assert time.process_time() - began < 5


def test_unguarded_the_hostile_header_is_packed(tmp_path: Path) -> None:
    def accept(_stream: BinaryIO, size: int, _subject: str) -> GgufHeader:
        return GgufHeader(3, 32, {"general.architecture": "llama"}, (), (), size, size)

    with guard_off(ROW.guard, accept):
        for data in HOSTILE.values():
            assert pack(tmp_path, data) == len(data)
