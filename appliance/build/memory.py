"""How much memory a model needs when it is served, from its header alone.

Owns a first estimate for `needs.ram_bytes`: weights held once in memory, the KV cache of all slots, and a fixed sum for
computing. It never reads weights.

Source: the KV formula of llama.cpp: layers x context x KV heads x (key length + value length) x bytes of the cache
type.
"""

from __future__ import annotations

from bundles.gguf import GgufHeader

COMPUTE_BYTES = 512 << 20
_F16_BYTES = 2


def serving_bytes(header: GgufHeader, context: int, slots: int) -> int:
    """Bytes of memory to serve a model.

    Args:
        header: of its GGUF.
        context: tokens for each slot.
        slots: parallel requests.
    """
    return header.file_size + kv_bytes(header, context * slots) + COMPUTE_BYTES


def kv_bytes(header: GgufHeader, tokens: int) -> int:
    """Bytes of an F16 KV cache for so many tokens; 0 for a model that does not generate."""
    layers = header.number(f"{header.architecture}.block_count")
    width = header.number(f"{header.architecture}.embedding_length")
    heads = header.number(f"{header.architecture}.attention.head_count")
    kv_heads = header.number(f"{header.architecture}.attention.head_count_kv") or heads
    per_head = width // heads if heads else 0
    key = header.number(f"{header.architecture}.attention.key_length") or per_head
    value = header.number(f"{header.architecture}.attention.value_length") or per_head
    return layers * tokens * kv_heads * (key + value) * _F16_BYTES
