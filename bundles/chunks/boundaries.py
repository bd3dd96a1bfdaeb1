"""The places where a file is cut into chunks (FORMAT 4).

Owns the rule alone: sizes in, sizes out, no bytes read. The rule depends on the file's own structure alone.
So two builders cut alike, and a small change of a model moves few chunks.

Rules for a GGUF:
- the header is cut before and after every key that starts with `tokenizer.chat_template` and every value over 64 KiB;
- what is left of the header, with its padding, goes up to the first tensor;
- a tensor of 8 MiB or more stands alone, and is cut every 64 MiB from its own start;
- smaller neighbours of the same block (`blk.7.`) share a chunk, closed before it would pass 64 MiB;
- padding belongs to the tensor before it; what follows the last tensor is a trailer of its own.
Every other file is cut every 64 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bundles.chunks.chunk import MAX_CHUNK_BYTES
from bundles.gguf.header import BIG_VALUE_BYTES, GgufHeader

ALONE_BYTES = 8 << 20
_TEMPLATE = "tokenizer.chat_template"
_BLOCK = re.compile(r"(?:^|.*?\.)blk\.[0-9]+\.")


def cut_plain(size: int) -> tuple[int, ...]:
    """Chunk sizes of a file without structure.

    Args:
        size: in bytes; 0 gives no chunk.
    """
    return tuple(_every_64_mib(size))


def cut_gguf(header: GgufHeader) -> tuple[int, ...]:
    """Chunk sizes of a GGUF file, in order; they add up to the file's size."""
    sizes: list[int] = []
    for length in (*_header_parts(header), *_tensor_parts(header)):
        sizes.extend(_every_64_mib(length))
    return tuple(sizes)


def _header_parts(header: GgufHeader) -> Iterator[int]:
    at = 0
    for span in header.spans:
        if span.name.startswith(_TEMPLATE) or span.value_bytes > BIG_VALUE_BYTES:
            yield span.start - at
            yield span.end - span.start
            at = span.end
    yield min(header.data_start, header.file_size) - at


def _tensor_parts(header: GgufHeader) -> Iterator[int]:
    shared, block = 0, ""
    spans = _padded_sizes(header)
    for tensor, size in zip(header.tensors, spans):
        match = _BLOCK.match(tensor.name)
        name = match.group() if match else ""
        joins = tensor.size < ALONE_BYTES and name and name == block and shared + size <= MAX_CHUNK_BYTES
        if not joins:
            yield shared
            shared = 0
        if tensor.size >= ALONE_BYTES or not name:
            yield size
            block = ""
        else:
            shared += size
            block = name
    yield shared
    yield max(0, header.file_size - header.data_start - sum(spans))


def _padded_sizes(header: GgufHeader) -> list[int]:
    starts = [tensor.offset for tensor in header.tensors]
    if not starts:
        return []
    last = header.tensors[-1]
    padded = last.offset + last.size + -(last.offset + last.size) % header.alignment
    ends = [*starts[1:], min(padded, header.file_size - header.data_start)]
    return [end - start for start, end in zip(starts, ends)]


def _every_64_mib(length: int) -> Iterator[int]:
    while length > 0:
        yield min(length, MAX_CHUNK_BYTES)
        length -= MAX_CHUNK_BYTES
