"""GGUF files of real architectures in any size, their weights holes or noise: a header that llama.cpp itself accepts.

Their words mean nothing, so no sense can be expected of them; how much memory they would take can. Only
`write_embedder` has weights with which it computes.
"""

from __future__ import annotations

import array
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundles.gguf.header import read_header
from bundles.gguf.types import TENSOR_TYPES
from tests.sim.gguf_files import ALIGNMENT, ARRAY, F32, TEXT, U32, head, string_key, tensor_info, text
from tests.sim.noise import noise

F16, Q8_0, Q4_0 = 1, 8, 2
Dims = tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """The numbers of a model.

    Args:
        arch: `general.architecture`.
        layers, width, heads, kv_heads, head_dim, ff, vocab, context: as in every transformer.
        window: of the sliding attention; 0 where there is none.
        kind: number of the tensor type of the matrices.
        is_ranker: whether a model that embeds sorts documents instead.
    """

    arch: str
    layers: int = 4
    width: int = 512
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 1536
    vocab: int = 8000
    context: int = 32768
    window: int = 0
    kind: int = F16
    is_ranker: bool = False


def write_model(path: Path, shape: Shape, *, seed: int | None = None, template: str = "") -> int:
    """Write a model; its weights are zeros that take no room on a disk, or with a `seed` noise: no two parts are equal.

    Args:
        path: of the file.
        shape: its architecture and size.
        seed: of the weights; those of a model that has another template are the same.
        template: of the chat; empty: none.

    Returns:
        The file's size in bytes.
    """
    infos, offset = b"", 0
    tensors = list(_tensors(shape))
    for name, dims in tensors:
        kind = TENSOR_TYPES[shape.kind if len(dims) > 1 else F32]
        number = shape.kind if len(dims) > 1 else F32
        infos += tensor_info(name, dims, number, offset)
        size = _product(dims) // kind.block_weights * kind.block_bytes
        offset += size + -size % ALIGNMENT
    keys = _keys(shape)
    if template:
        keys.append(string_key("tokenizer.chat_template", template))
    data = head(len(keys), len(tensors)) + b"".join(keys) + infos
    data += bytes(-len(data) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(data)
        for block in noise(seed, offset) if seed is not None else ():
            file.write(block)
        file.truncate(len(data) + offset)
    return len(data) + offset


RANKS = "<|system|>Judge the document.\n<Query>: {query}\n<Document>: {document}\n"
BYTES, NORMAL, CONTROL, UNKNOWN, BYTE = 256, 1, 3, 2, 6
SPECIAL = ("<unk>", "<s>", "</s>")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁the", "▁cat", "▁sat", "▁on", "▁a", "▁mat", "▁.")
EMBEDDER = Shape("bert", layers=2, width=32, heads=2, kv_heads=2, head_dim=16, ff=64, vocab=len(WORDS), context=64)


CAUSAL = Shape("qwen3", layers=1, width=64, heads=2, kv_heads=2, head_dim=32, ff=64, vocab=400, context=2048)
"""A model that reads a text from its begin to its end, and may sort documents by what the last token says."""


def write_embedder(path: Path, shape: Shape = EMBEDDER, *, is_dumb: bool = False, is_ranker: bool = False) -> int:
    """Write a tiny model that embeds: an engine loads it, and its numbers are those of its weights, which are noise.

    Args:
        path: of the file.
        shape: that of `EMBEDDER`, or of another model that computes vectors.
        is_dumb: leave its weights zero, so that every embedding is.
        is_ranker: let it sort documents instead.

    Returns:
        The file's size in bytes.
    """
    size = write_model(path, replace(shape, kind=F32, is_ranker=is_ranker))
    with path.open("rb") as file:
        start = read_header(file, size, "embedder").data_start
    if not is_dumb:
        chance = random.Random(1)
        weights = array.array("f", (chance.uniform(-1, 1) for _ in range((size - start) // 4)))
        with path.open("r+b") as file:
            file.seek(start)
            file.write(weights.tobytes())
    return size


def array_key(name: str, kind: int, items: Sequence[bytes]) -> bytes:
    """A GGUF key with an array, whose items are spelled already."""
    return text(name) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)


def number_key(name: str, value: int) -> bytes:
    """A GGUF key with a 32-bit number."""
    return text(name) + struct.pack("<II", U32, value)


def float_key(name: str, value: float) -> bytes:
    """A GGUF key with a 32-bit float."""
    return text(name) + struct.pack("<If", 6, value)


def _keys(shape: Shape) -> list[bytes]:
    def key(name: str, value: int) -> bytes:
        return number_key(f"{shape.arch}.{name}", value)

    keys = [
        string_key("general.architecture", shape.arch),
        *(embedder_words() if shape.vocab == len(WORDS) else any_words(shape.vocab)),
        key("block_count", shape.layers),
        key("context_length", shape.context),
        key("embedding_length", shape.width),
        key("feed_forward_length", shape.ff),
        key("attention.head_count", shape.heads),
        key("attention.head_count_kv", shape.kv_heads),
        key("attention.key_length", shape.head_dim),
        key("attention.value_length", shape.head_dim),
        key("vocab_size", shape.vocab),
        float_key(f"{shape.arch}.attention.layer_norm_rms_epsilon", 1e-5),
        float_key(f"{shape.arch}.attention.layer_norm_epsilon", 1e-5),
    ]
    if shape.window:
        keys.append(key("attention.sliding_window", shape.window))
    if shape.arch == "bert":
        keys += [key("pooling_type", 4 if shape.is_ranker else 1), key("tokenizer.ggml.token_type_count", 2)]
        keys += [number_key("tokenizer.ggml.token_type_count", 2)]
    elif shape.is_ranker:
        labels = array_key(f"{shape.arch}.classifier.output_labels", TEXT, [text("yes"), text("no")])
        keys += [key("pooling_type", 4), labels, string_key("tokenizer.chat_template.rerank", RANKS)]
    return keys


def any_words(count: int) -> list[bytes]:
    """The keys of a tokenizer that splits every text: bytes, letters, and numbered words up to a count."""
    words = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(BYTES)), "▁", *map(chr, range(0x21, 0x7F))][:count]
    words += [f"▁{number}" for number in range(count - len(words))]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * BYTES, *[NORMAL] * count][:count]
    prefix = "tokenizer.ggml."
    ids = [number_key(f"{prefix}{name}_token_id", at) for at, name in enumerate(("unknown", "bos", "eos"))]
    return [
        string_key(prefix + "model", "llama"),
        array_key(prefix + "tokens", TEXT, [text(word) for word in words]),
        array_key(prefix + "scores", 6, [struct.pack("<f", -at) for at in range(count)]),
        array_key(prefix + "token_type", 5, [struct.pack("<i", kind) for kind in kinds]),
        *ids,
    ]


def embedder_words() -> list[bytes]:
    """The keys of the tokenizer of `WORDS`."""
    prefix = "tokenizer.ggml."
    names = ("padding", "unknown", "bos", "seperator", "mask")
    return [
        string_key(prefix + "model", "bert"),
        string_key(prefix + "pre", "default"),
        array_key(prefix + "tokens", TEXT, [text(word) for word in WORDS]),
        *(number_key(f"{prefix}{name}_token_id", at) for at, name in enumerate(names)),
    ]


def _tensors(shape: Shape) -> Sequence[tuple[str, Dims]]:
    extra = _EXTRA.get(shape.arch, _llama)
    found: list[tuple[str, Dims]] = [("token_embd.weight", (shape.width, shape.vocab))]
    found += _outer(shape)
    for layer in range(shape.layers):
        found += [(f"blk.{layer}.{name}", dims) for name, dims in (*_matrices(shape), *extra(shape))]
    return found


def _outer(shape: Shape) -> list[tuple[str, Dims]]:
    if shape.arch == "bert":
        norm: list[tuple[str, Dims]] = [(f"token_embd_norm.{part}", (shape.width,)) for part in ("weight", "bias")]
        ends: list[tuple[str, Dims]] = [("cls.output.weight", (shape.width, 1)), ("cls.output.bias", (1,))]
        norm += ends if shape.is_ranker else []
        return [("token_types.weight", (shape.width, 2)), ("position_embd.weight", (shape.width, shape.context)), *norm]
    own = [] if shape.arch.startswith("gemma") else [("output.weight", (shape.width, shape.vocab))]
    own += [("cls.output.weight", (shape.width, 2))] if shape.is_ranker else []
    return [("output_norm.weight", (shape.width,)), *own]


def _matrices(shape: Shape) -> list[tuple[str, Dims]]:
    query, rest = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return [
        ("attn_q.weight", (shape.width, query)),
        ("attn_k.weight", (shape.width, rest)),
        ("attn_v.weight", (shape.width, rest)),
        ("attn_output.weight", (query, shape.width)),
        ("ffn_up.weight", (shape.width, shape.ff)),
        ("ffn_down.weight", (shape.ff, shape.width)),
    ]


def _llama(shape: Shape) -> list[tuple[str, Dims]]:
    gate: list[tuple[str, Dims]] = [("ffn_gate.weight", (shape.width, shape.ff))]
    return gate + [(f"{name}.weight", (shape.width,)) for name in ("attn_norm", "ffn_norm")]


def _qwen2(shape: Shape) -> list[tuple[str, Dims]]:
    query, rest = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return [*_llama(shape), ("attn_q.bias", (query,)), ("attn_k.bias", (rest,)), ("attn_v.bias", (rest,))]


def _qwen3(shape: Shape) -> list[tuple[str, Dims]]:
    return [*_llama(shape), *[(f"attn_{name}_norm.weight", (shape.head_dim,)) for name in "qk"]]


def _gemma2(shape: Shape) -> list[tuple[str, Dims]]:
    names = ("post_attention_norm", "post_ffw_norm")
    return [*_llama(shape), *[(f"{name}.weight", (shape.width,)) for name in names]]


def _gemma3(shape: Shape) -> list[tuple[str, Dims]]:
    return [*_gemma2(shape), *_qwen3(shape)[-2:]]


def _bert(shape: Shape) -> list[tuple[str, Dims]]:
    sizes = {"attn_q": shape.width, "attn_k": shape.width, "attn_v": shape.width, "attn_output": shape.width}
    sizes |= {"ffn_up": shape.ff, "ffn_down": shape.width}
    found: list[tuple[str, Dims]] = [(f"{name}.bias", (size,)) for name, size in sizes.items()]
    for name in ("attn_output_norm", "layer_output_norm"):
        found += [(f"{name}.{part}", (shape.width,)) for part in ("weight", "bias")]
    return found


def _product(dims: Dims) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count


_EXTRA: dict[str, Callable[[Shape], list[tuple[str, Dims]]]] = {
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "bert": _bert,
}
