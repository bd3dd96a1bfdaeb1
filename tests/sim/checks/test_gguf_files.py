"""What the generator calls valid is valid, and what is big takes no room."""

from __future__ import annotations

import io
from pathlib import Path

from bundles.chunks.boundaries import cut_gguf
from bundles.gguf.header import read_header
from tests.sim.gguf_files import gguf, header, string_key, write_sparse

GIB = 1 << 30


def test_file_in_memory_is_read_as_it_was_asked_for() -> None:
    data = gguf([string_key("tokenizer.chat_template", "{{ x }}")], [("blk.0.a", 100), ("out", 8)], tail=b"end")
    found = read_header(io.BytesIO(data), len(data), "x.gguf")
    assert [(tensor.name, tensor.weights) for tensor in found.tensors] == [("blk.0.a", 100), ("out", 8)]
    assert found.template == "{{ x }}"
    assert data.endswith(b"end")


def test_five_gib_are_valid_and_take_no_room(tmp_path: Path) -> None:
    tensors = [("blk.0.a", GIB // 4), ("blk.0.b", GIB)]
    _, starts, _ = header(tensors)
    size = write_sparse(tmp_path / "big.gguf", tensors, marks={starts[1]: b"marked", 5 * GIB: b"far"})
    with (tmp_path / "big.gguf").open("rb") as file:
        found = read_header(file, size, "big.gguf")
        file.seek(5 * GIB)
        assert file.read(4) == b"far\0"
        file.seek(starts[1])
        assert file.read(6) == b"marked"
    assert (tmp_path / "big.gguf").stat().st_size == size > 5 * GIB
    assert (tmp_path / "big.gguf").stat().st_blocks * 512 < 1 << 20
    assert sum(cut_gguf(found)) == size
