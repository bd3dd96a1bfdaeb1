"""What the rule of FORMAT 4 gives for models of many gigabytes: it needs their headers only, so nothing big is made."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bundles.chunks.boundaries import ALONE_BYTES, cut_gguf
from bundles.chunks.chunk import MAX_CHUNK_BYTES
from bundles.gguf.header import GgufHeader, read_header
from bundles.gguf.types import TENSOR_TYPES
from tests.sim.gguf_files import ARCH, head, tensor_info
from tests.sim.gguf_models import F16, Q4_0, Q8_0, Shape, write_model

MIB, GIB = 1 << 20, 1 << 30
Q6_K = 14
SHAPES = {
    "8B, 4 bits": Shape("llama", 32, 4096, 32, 8, 128, 14336, 128256, kind=Q4_0),
    "8B of Qwen, 4 bits": Shape("qwen3", 36, 4096, 32, 8, 128, 12288, 151936, kind=Q4_0),
    "12B of Gemma, 4 bits": Shape("gemma3", 48, 3840, 16, 8, 256, 15360, 262208, window=1024, kind=Q4_0),
    "7B, 8 bits": Shape("llama", 32, 4096, 32, 32, 128, 11008, 32000, kind=Q8_0),
    "3B, 16 bits": Shape("llama", 28, 3072, 24, 8, 128, 8192, 128256, kind=F16),
    "70B, 4 bits": Shape("llama", 80, 8192, 64, 8, 128, 28672, 128256, kind=Q4_0),
}


def check(header: GgufHeader) -> None:
    sizes = cut_gguf(header)
    assert sum(sizes) == header.file_size > 4 * GIB
    assert 0 < min(sizes) <= max(sizes) <= MAX_CHUNK_BYTES
    assert header.file_size / len(sizes) >= 16 * MIB


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_chunks_of_a_model_over_four_gib_have_16_mib_on_average(tmp_path: Path, shape: Shape) -> None:
    size = write_model(tmp_path / "model.gguf", shape)  # holes
    with (tmp_path / "model.gguf").open("rb") as file:
        check(read_header(file, size, "model.gguf"))


def test_so_have_those_of_the_order_in_which_converters_write() -> None:
    """Llama 3.1 8B with four bits and an output of six: small tensors lie between big ones, the worst case known."""
    block = {
        "attn_norm": (4096,),
        "ffn_down": (14336, 4096),
        "ffn_gate": (4096, 14336),
        "ffn_up": (4096, 14336),
        "ffn_norm": (4096,),
        "attn_k": (4096, 1024),
        "attn_output": (4096, 4096),
        "attn_q": (4096, 4096),
        "attn_v": (4096, 1024),
    }
    tensors: list[tuple[str, tuple[int, ...], int]] = [("rope_freqs.weight", (64,), 0)]
    tensors.append(("token_embd.weight", (4096, 128256), Q4_0))
    for number in range(32):
        for name, dims in block.items():
            tensors.append((f"blk.{number}.{name}.weight", dims, Q4_0 if len(dims) > 1 else 0))
    tensors += [("output.weight", (4096, 128256), Q6_K), ("output_norm.weight", (4096,), 0)]
    check(header_of(tensors))


def test_a_tensor_of_more_than_four_gib_is_cut_from_its_own_start() -> None:
    small, big = 1000 * 4, 5 * GIB
    header = header_of([("blk.0.a", (1000,), 0), ("blk.0.b", (big // 4,), 0), ("blk.0.c", (1000,), 0)])
    head_size, *sizes = cut_gguf(header)
    assert head_size == header.data_start
    assert sizes == [small, *[MAX_CHUNK_BYTES] * (big // MAX_CHUNK_BYTES), small]
    assert big >= ALONE_BYTES


def header_of(tensors: list[tuple[str, tuple[int, ...], int]]) -> GgufHeader:
    """The header of a file with these tensors, as (name, dimensions, type); the file itself is not made."""
    infos, offset = b"", 0
    for name, dims, kind in tensors:
        weights = 1
        for dim in dims:
            weights *= dim
        infos += tensor_info(name, list(dims), kind, offset)
        size = weights // TENSOR_TYPES[kind].block_weights * TENSOR_TYPES[kind].block_bytes
        offset += size + -size % 32
    data = head(1, len(tensors)) + ARCH + infos
    return read_header(io.BytesIO(data), len(data) + -len(data) % 32 + offset, "model.gguf")
