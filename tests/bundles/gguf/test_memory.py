"""What a model needs follows from its header: worked out by hand here, and for hostile numbers without harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.memory import PROGRAM_BYTES, Workload, compute_bytes, estimate, kv_bytes, layer_bytes, layer_kv_bytes
from tests.sim.gguf_files import gguf
from tests.sim.gguf_models import F16, Q4_0, Q8_0, Shape, number_key, write_model

MIB = 1 << 20
BASE = Shape("llama")


def header(folder: Path, shape: Shape) -> GgufHeader:
    path = folder / "model.gguf"
    size = write_model(path, shape)
    with path.open("rb") as file:
        return read_header(file, size, path.name)


def test_cache_of_a_plain_model_is_layers_times_context_times_both_widths(tmp_path: Path) -> None:
    found = header(tmp_path, BASE)
    # 4 layers, 2 slots of 4096 tokens, 2 KV heads of 64 for keys and for values, 2 bytes each.
    assert kv_bytes(found, Workload(4096, 2)) == 4 * 2 * 4096 * 2 * (64 + 64) * 2
    assert kv_bytes(found, Workload(4096, 2, "q8_0")) == kv_bytes(found, Workload(4096, 2)) // 2 * 34 // 32
    assert kv_bytes(found, Workload(1, 1)) == kv_bytes(found, Workload(256, 1))


def test_layers_that_look_back_only_so_far_keep_only_so_much(tmp_path: Path) -> None:
    found = header(tmp_path, Shape("gemma3", layers=12, window=512))
    layers = layer_kv_bytes(found, Workload(8192, 2))
    row = 2 * (2 * 64) * 2
    assert layers[5] == layers[11] == 2 * 8192 * row
    assert {size for number, size in enumerate(layers) if number not in (5, 11)} == {2 * 1024 * row}
    # In a short context the window covers everything.
    assert set(layer_kv_bytes(found, Workload(512, 2))) == {2 * 512 * row}


def test_pattern_of_the_window_that_the_file_names_beats_the_usual_one(tmp_path: Path) -> None:
    found = header(tmp_path, Shape("gemma2", layers=4, window=512))
    usual, named = layer_kv_bytes(found, Workload(8192, 1)), replace(found)
    named.values["gemma2.attention.sliding_window_pattern"] = 4
    assert [size < usual[1] for size in layer_kv_bytes(named, Workload(8192, 1))] == [True, True, True, False]
    assert [size < usual[1] for size in usual] == [True, False, True, False]


def test_window_of_an_unknown_pattern_counts_as_none(tmp_path: Path) -> None:
    found = header(tmp_path, replace(BASE, window=512))
    assert kv_bytes(found, Workload(8192, 1)) == kv_bytes(header(tmp_path, BASE), Workload(8192, 1))


def test_model_that_does_not_generate_has_no_cache(tmp_path: Path) -> None:
    found = header(tmp_path, Shape("bert", kv_heads=8, context=512))
    assert kv_bytes(found, Workload(512, 4)) == 0
    assert compute_bytes(found, Workload(512, 4)) > MIB


@pytest.mark.parametrize(("kind", "is_copied"), [(F16, False), (Q8_0, False), (Q4_0, True)])
def test_only_weights_that_a_processor_reorders_count_twice(tmp_path: Path, kind: int, is_copied: bool) -> None:
    found = header(tmp_path, replace(BASE, kind=kind))
    tables = {"token_embd.weight"}
    matrices = sum(one.size for one in found.tensors if len(one.dims) > 1 and one.name not in tables)
    assert estimate(found, Workload(512, 1)).repacked == (matrices if is_copied else 0)


def test_total_is_the_sum_of_the_parts_and_grows_with_what_is_asked(tmp_path: Path) -> None:
    found = header(tmp_path, BASE)
    need = estimate(found, Workload(4096, 4))
    assert need.weights == found.file_size
    assert need.total == need.weights + need.repacked + need.kv + need.compute + PROGRAM_BYTES
    for more in (Workload(8192, 4), Workload(4096, 8)):
        assert estimate(found, more).total > need.total
    assert estimate(found, Workload(4096, 4, "q8_0")).total < need.total


def test_layers_have_the_weights_of_their_own_tensors(tmp_path: Path) -> None:
    found = header(tmp_path, BASE)
    layers = layer_bytes(found)
    assert len(layers) == 4
    assert len(set(layers)) == 1
    rest = sum(one.size for one in found.tensors if not one.name.startswith("blk."))
    assert sum(layers) + rest == sum(one.size for one in found.tensors)


@pytest.mark.parametrize("name", ["block_count", "embedding_length", "attention.head_count_kv", "vocab_size"])
def test_numbers_of_a_liar_cost_nothing_but_a_large_answer(name: str) -> None:
    data = gguf([number_key(f"llama.{name}", (1 << 32) - 1), number_key("llama.attention.head_count", 1)])
    from io import BytesIO

    found = read_header(BytesIO(data), len(data), "liar.gguf")
    need = estimate(found, Workload(1 << 24, 256))
    assert need.total > 0
    assert len(layer_bytes(found)) <= len(found.tensors)


def test_header_that_says_nothing_still_has_an_answer() -> None:
    from io import BytesIO

    data = gguf()
    need = estimate(read_header(BytesIO(data), len(data), "bare.gguf"), Workload(512, 1))
    assert (need.kv, need.weights) == (0, len(data))
