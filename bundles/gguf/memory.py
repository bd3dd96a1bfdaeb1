"""How much memory a model takes when it is served, from its header alone.

Owns the one formula that the builder (what a bundle needs) and the host (what fits) share. It never reads weights.

Rules:
- what stands in memory at once: the file, copies of weights that a processor wants in another order, the KV cache of
  all slots, the buffers for computing, the program itself;
- each part is what llama.cpp allocates when `appliance.host.engine.process` starts it;
- that means a cache of its own for each slot, batches of 512 tokens, flash attention, one row of logits for each slot;
- where a header does not say enough, the larger number is taken: a plan may be too careful, never too bold.

Source: llama.cpp as vendored by llama-cpp-python 0.3.36: `llama_kv_cache`, `llama_kv_cache_iswa`, the repacking rules
of `ggml-cpu/repack.cpp`. The size of the computing buffer follows no published rule; the one here was fitted to what
that version allocates, and the tests compare it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bundles.gguf.header import GgufHeader, Tensor
from bundles.gguf.types import TENSOR_TYPES

BATCH_TOKENS = 512
CELLS = 256
"""A slot's cache has a multiple of this many cells."""

KV_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}
"""How the KV cache may be stored, with the number of the tensor type."""

RESERVE_BYTES = 1 << 30
"""What a host keeps for all else than models: the system, the gateway, and the room that a busy machine needs."""

PROGRAM_BYTES = 24 << 20
"""The program with its libraries, buffers for requests, and the vocabulary's tables."""

_FLOAT_BYTES, _MASK_BYTES = 4, 2
_REPACKED = ("Q2_K", "Q4_0", "Q4_K", "IQ4_NL", "MXFP4")
_LOOKED_UP = ("token_embd.", "token_types.", "position_embd.", "per_layer_token_embd.")
_WITHOUT_CACHE = (
    *("bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
    *("nomic-bert", "nomic-bert-moe"),
)
_COMPARED = ("bert", "gemma2", "gemma3", "llama", "qwen2", "qwen3")
_SLIDING = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2}
"""Architectures that look back only so far in all layers but every n-th; others have a list, or nothing."""


@dataclass(frozen=True)
class Workload:
    """The workload of a model: tokens of a conversation, conversations at the same time, the type of the cache."""

    context: int
    slots: int
    kv_type: str = "f16"

    @property
    def batch_tokens(self) -> int:
        """How many tokens are computed at once."""
        return min(BATCH_TOKENS, _padded(self.context, CELLS) * self.slots)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of memory, part by part.

    Args:
        weights: the file, all of it.
        repacked: copies of weights in the order that a processor with AVX2 wants.
        kv: the KV cache of all slots; 0 for a model that does not generate.
        compute: buffers for computing, and the logits.
        program: everything else.
        is_compared: whether this architecture's formula is compared with llama.cpp in the tests.
    """

    weights: int
    repacked: int
    kv: int
    compute: int
    program: int
    is_compared: bool

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.weights + self.repacked + self.kv + self.compute + self.program


def estimate(header: GgufHeader, load: Workload) -> MemoryNeed:
    """What a model needs to be served.

    Args:
        header: of its GGUF, checked; its numbers are the author's and may be anything.
        load: the workload.
    """
    return MemoryNeed(
        weights=header.file_size,
        repacked=sum(tensor.size for tensor in header.tensors if _is_repacked(tensor)),
        kv=kv_bytes(header, load),
        compute=compute_bytes(header, load),
        program=PROGRAM_BYTES,
        is_compared=header.architecture in _COMPARED,
    )


def kv_bytes(header: GgufHeader, load: Workload) -> int:
    """Bytes of the KV cache: layers x cells x (key length + value length) x bytes of one number, for each slot."""
    return sum(layer_kv_bytes(header, load))


def layer_kv_bytes(header: GgufHeader, load: Workload) -> tuple[int, ...]:
    """Bytes of the KV cache of each layer, for all slots together."""
    layers = _number(header, "block_count")
    if header.architecture in _WITHOUT_CACHE:
        return (0,) * min(layers, len(header.tensors))
    kind = TENSOR_TYPES[KV_TYPES[load.kv_type]]
    cells = _padded(load.context, CELLS)
    window = _number(header, "attention.sliding_window")
    near = min(cells, _padded(window + load.batch_tokens, CELLS)) if window else cells
    rows = {tensor.name: tensor.dims[-1] for tensor in header.tensors if len(tensor.dims) > 1}
    found = []
    # A header may claim any number of layers; each that exists has tensors.
    for layer in range(min(layers, len(header.tensors))):
        width = _row_width(header, rows, layer, "k", "key_length") + _row_width(
            header, rows, layer, "v", "value_length"
        )
        blocks = -(-width // kind.block_weights)
        found.append((near if _is_sliding(header, layer) else cells) * load.slots * blocks * kind.block_bytes)
    return tuple(found)


def layer_bytes(header: GgufHeader) -> tuple[int, ...]:
    """Bytes of the weights of each layer, in order; what belongs to no layer is not counted."""
    layers = min(_number(header, "block_count"), len(header.tensors))
    found = [0] * layers
    for tensor in header.tensors:
        first, _, rest = tensor.name.partition(".")
        number = rest.partition(".")[0]
        if first == "blk" and number.isdecimal() and len(number) < 8 and int(number) < layers:
            found[int(number)] += tensor.size
    return tuple(found)


def compute_bytes(header: GgufHeader, load: Workload) -> int:
    """Bytes of the buffers for computing: what a layer holds at its widest, the attention masks, the logits."""
    tokens = load.batch_tokens
    width = _number(header, "embedding_length") * tokens * _FLOAT_BYTES
    inner = _inner_width(header) * tokens * _FLOAT_BYTES
    heads = _number(header, "attention.head_count") * _head_width(header, "key_length") * tokens * _FLOAT_BYTES
    logits = _vocabulary(header) * load.slots * _FLOAT_BYTES
    is_gated = any(".ffn_gate" in tensor.name for tensor in header.tensors)
    feeding = 2 * width + (2 * min(width, heads) + 3 * inner if is_gated else inner)
    attending = 2 * width + 3 * heads
    return max(feeding, attending, width + logits) + _mask_bytes(header, load) + logits


def _mask_bytes(header: GgufHeader, load: Workload) -> int:
    tokens, cells = load.batch_tokens, _padded(load.context, CELLS)
    if header.architecture in _WITHOUT_CACHE:
        return tokens * tokens * (_FLOAT_BYTES + _MASK_BYTES)
    window = _number(header, "attention.sliding_window")
    near = min(cells, _padded(window + tokens, CELLS)) if window else 0
    return (cells + near) * tokens * _MASK_BYTES


def _is_sliding(header: GgufHeader, layer: int) -> bool:
    pattern = _number(header, "attention.sliding_window_pattern") or _SLIDING.get(header.architecture, 0)
    return bool(_number(header, "attention.sliding_window") and pattern > 1 and layer % pattern < pattern - 1)


def _is_repacked(tensor: Tensor) -> bool:
    is_matrix = len(tensor.dims) > 1 and tensor.dims[1] % 8 == 0
    return is_matrix and tensor.type.name in _REPACKED and not tensor.name.startswith(_LOOKED_UP)


def _row_width(header: GgufHeader, rows: dict[str, int], layer: int, part: str, length: str) -> int:
    """How many numbers a layer keeps of a token: what its matrix makes, or what the keys say where it has none."""
    made = rows.get(f"blk.{layer}.attn_{part}.weight")
    if made is not None:
        return made
    heads = _number(header, "attention.head_count_kv") or _number(header, "attention.head_count")
    return heads * _head_width(header, length)


def _head_width(header: GgufHeader, length: str) -> int:
    heads = _number(header, "attention.head_count")
    return _number(header, f"attention.{length}") or (_number(header, "embedding_length") // heads if heads else 0)


def _inner_width(header: GgufHeader) -> int:
    experts = _number(header, "expert_used_count")
    of_expert = _number(header, "expert_feed_forward_length") * experts
    return max(_number(header, "feed_forward_length"), of_expert)


def _vocabulary(header: GgufHeader) -> int:
    rows = next((tensor.dims[-1] for tensor in header.tensors if tensor.name == "token_embd.weight"), 0)
    return max(rows, _number(header, "vocab_size"))


def _number(header: GgufHeader, name: str) -> int:
    return header.number(f"{header.architecture}.{name}")


def _padded(value: int, unit: int) -> int:
    return value + -value % unit
