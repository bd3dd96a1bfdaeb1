"""A bounded reader for the header of a GGUF file (threat T28).

Owns what is known about a model before any C++ sees it. It never reads weights, never allocates by a length that the
file claims, and refuses what it cannot account for byte by byte.

Rules:
- version 2 or 3, little endian; counts, strings, arrays and the whole header have caps;
- keys are unique; an alignment is a power of two; dimensions multiply without overflow and fill whole blocks;
- tensors lie one after the other at exactly the offset that the ones before them leave, inside the file.

Source: gguf.md of ggml; the size rules of `gguf_init_from_reader` in llama.cpp.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Union

from bundles.gguf.foreign import FIRST_BYTES, name_foreign
from bundles.gguf.types import FILE_TYPES, TENSOR_TYPES, TensorType
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError
from signing.strictjson import to_file

Scalar = Union[int, float, bool, str]

MAX_HEADER_BYTES = 256 << 20
MAX_KEYS = 4096
MAX_TENSORS = 1 << 17
MAX_ARRAY = 1 << 22
MAX_TEXT_BYTES = 1 << 20
MAX_NAME_BYTES = 255
MAX_WEIGHTS = 1 << 60
BIG_VALUE_BYTES = 64 << 10
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_BLOCK_BYTES = 1 << 20
_VERSIONS = (struct.pack("<I", 2), struct.pack("<I", 3))
POOLED = (1, 2, 3)
"""Mean, first token, last token. 0 is no pooling, and 4 ranks instead of embedding."""
_NAME = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True)
class KeySpan:
    """Where one key with its value stands in the header: [start, end), and the bytes of the value alone."""

    name: str
    start: int
    end: int
    value_bytes: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: 1 to 4 dimensions, type, offset from the start of the data, size in bytes without padding."""

    name: str
    dims: tuple[int, ...]
    type: TensorType
    offset: int
    size: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        count = 1
        for dim in self.dims:
            count *= dim
        return count


@dataclass(frozen=True)
class GgufHeader:
    """The checked header of one GGUF file.

    Args:
        version: 2 or 3.
        alignment: of the tensor data, in bytes.
        values: keys with a number or a text of at most 1 MiB; arrays are not kept.
        spans: every key, in file order.
        tensors: in file order, which is offset order.
        data_start: where tensor data begins, in bytes from the start of the file.
        file_size: in bytes.
    """

    version: int
    alignment: int
    values: dict[str, Scalar] = field(repr=False)
    spans: tuple[KeySpan, ...] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    data_start: int
    file_size: int

    def number(self, name: str, absent: int = 0) -> int:
        """The whole number of a key; `absent` where there is none, or something that is no count."""
        value = self.values.get(name)
        return value if type(value) is int and value >= 0 else absent

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example `llama`."""
        return str(self.values["general.architecture"])

    @property
    def parameters(self) -> int:
        """The number of weights in all tensors."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """The file type's name, or the most common type of tensor data where the file names none."""
        named = FILE_TYPES.get(self.number("general.file_type", absent=-1))
        if named or not self.tensors:
            return named or "none"
        largest = max(self.tensors, key=lambda tensor: tensor.size)
        return largest.type.name

    @property
    def context(self) -> int:
        """The context that the model was trained for, in tokens; 0 where the file does not state it."""
        return self.number(f"{self.architecture}.context_length")

    @property
    def embedding(self) -> int:
        """How many numbers an embedding by this model has; 0 for a model that is not made for embeddings."""
        pooling = self.number(f"{self.architecture}.pooling_type")
        length = self.number(f"{self.architecture}.embedding_length")
        out = self.number(f"{self.architecture}.embedding_length_out", absent=length)
        return out if pooling in POOLED else 0

    @property
    def template(self) -> str | None:
        """The chat template, or None."""
        value = self.values.get("tokenizer.chat_template")
        return value if isinstance(value, str) else None

    @property
    def template_digest(self) -> Digest | None:
        """sha256 of the chat template's UTF-8 bytes, or None where there is none."""
        return sha256(self.template.encode()) if self.template is not None else None

    @property
    def tensors_digest(self) -> Digest:
        """sha256 of the tensor table: canonical JSON of `[[name, type, [dims], offset] …]` in file order (FORMAT 5)."""
        table = [[tensor.name, tensor.type.name, list(tensor.dims), tensor.offset] for tensor in self.tensors]
        return sha256(to_file(table))


def read_header(stream: BinaryIO, file_size: int, subject: str, *, is_part: bool = False) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Args:
        stream: untrusted, opened for binary reading at the file's first byte; read forward only, and up to 1 MiB more
            than the header where one read gives more.
        file_size: the file's length in bytes.
        subject: the file's name, for errors.
        is_part: whether it may be a later part of a split GGUF, which names no architecture.

    Raises:
        NotTrustedError: a rule of this module is broken (code `gguf.refused`).
    """
    cursor = _Cursor(stream, min(file_size, MAX_HEADER_BYTES), subject)
    start = cursor.look(FIRST_BYTES)
    if start[:4] != b"GGUF" or start[4:8] not in _VERSIONS:
        raise cursor.refuse("a GGUF file of version 2 or 3, little endian", *name_foreign(start))
    cursor.take(4)
    version = cursor.number("<I")
    tensor_count = cursor.count(MAX_TENSORS, "tensors")
    key_count = cursor.count(MAX_KEYS, "keys")
    values, spans = _read_keys(cursor, key_count)
    if not is_part and not isinstance(values.get("general.architecture"), str):
        raise cursor.refuse("the key general.architecture", *_without_architecture(values))
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        raise cursor.refuse("an alignment that is a power of two, 8 to 65536", str(alignment))
    tensors = _read_tensors(cursor, tensor_count, alignment)
    if cursor.at > file_size:
        raise cursor.refuse(f"at least {cursor.at} bytes", f"{file_size} bytes: the header is longer")
    data_start = _align(cursor.at, alignment)
    end = data_start + (tensors[-1].offset + tensors[-1].size if tensors else 0)
    if end > file_size and tensors:
        raise cursor.refuse(f"at least {end} bytes", f"{file_size} bytes: the last tensors are missing")
    return GgufHeader(version, alignment, values, spans, tensors, data_start, file_size)


def _without_architecture(values: dict[str, Scalar]) -> tuple[str, str]:
    part, parts, kind = (values.get(name) for name in ("split.no", "split.count", "general.type"))
    if type(part) is int and type(parts) is int:
        return f"part {part + 1} of {parts} of a split GGUF", "name all parts in their order, the first one first"
    return (f"a file of type {kind!r}", "take the model itself") if isinstance(kind, str) else ("none", "")


def _read_keys(cursor: _Cursor, count: int) -> tuple[dict[str, Scalar], tuple[KeySpan, ...]]:
    values: dict[str, Scalar] = {}
    spans: list[KeySpan] = []
    seen: set[str] = set()
    for _ in range(count):
        start = cursor.at
        name = cursor.name("a key")
        if name in seen:
            raise cursor.refuse("each key once", f"{name} twice")
        seen.add(name)
        kind = cursor.number("<I")
        value_start = cursor.at
        value = cursor.value(kind, name)
        if value is not None:
            values[name] = value
        spans.append(KeySpan(name, start, cursor.at, cursor.at - value_start))
    return values, tuple(spans)


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    seen: set[str] = set()
    expected = 0
    for _ in range(count):
        tensor = _read_tensor(cursor)
        if tensor.name in seen:
            raise cursor.refuse("each tensor once", f"{tensor.name} twice")
        if tensor.offset != expected:
            raise cursor.refuse(f"tensor {tensor.name} at offset {expected}", f"offset {tensor.offset}")
        seen.add(tensor.name)
        tensors.append(tensor)
        expected = _align(tensor.offset + tensor.size, alignment)
    return tuple(tensors)


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.name("a tensor")
    dim_count = cursor.number("<I")
    if not 1 <= dim_count <= 4:
        raise cursor.refuse(f"tensor {name} with 1 to 4 dimensions", str(dim_count))
    dims = tuple(cursor.number("<Q") for _ in range(dim_count))
    weights = 1
    for dim in dims:
        weights *= dim
        if not 1 <= dim <= MAX_WEIGHTS or weights > MAX_WEIGHTS:
            raise cursor.refuse(f"tensor {name} of 1 to 2^60 weights", f"dimensions {dims}")
    kind = TENSOR_TYPES.get(cursor.number("<I"))
    if kind is None:
        raise cursor.refuse(f"tensor {name} of a known type", "an unknown type number")
    if dims[0] % kind.block_weights:
        raise cursor.refuse(f"tensor {name} in rows of whole blocks of {kind.block_weights}", f"rows of {dims[0]}")
    size = weights // kind.block_weights * kind.block_bytes
    return Tensor(name, dims, kind, cursor.number("<Q"), size)


def _align(offset: int, alignment: int) -> int:
    return offset + -offset % alignment


class _Cursor:
    """Reads forward through the header, a block at a time, and refuses to pass its limit."""

    def __init__(self, stream: BinaryIO, limit: int, subject: str) -> None:
        self.stream = stream
        self.limit = limit
        self.subject = subject
        self._block = b""
        self._start = 0  # of the block, in the file
        self._next = 0  # in the block

    @property
    def at(self) -> int:
        return self._start + self._next

    def refuse(self, expected: str, found: str, hint: str = "") -> NotTrustedError:
        return NotTrustedError("gguf.refused", self.subject, expected=expected, found=found[:200], hint=hint)

    def look(self, most: int) -> bytes:
        """The first bytes of the file, before anything is taken: all of a shorter file."""
        self._block = self._read(8, min(_BLOCK_BYTES, self.limit))
        if not self._block.startswith(b"GGUF"):  # only what is no model is looked at further
            self._block += self._read(most - len(self._block), max(0, most - len(self._block)))
        return self._block[:most]

    def take(self, size: int) -> bytes:
        end = self._next + size
        if end > len(self._block):
            self._load(size)
            end = size
        data = self._block[self._next : end]
        self._next = end
        return data

    def skip(self, size: int) -> None:
        self._check_limit(size)
        while size:
            step = min(size, max(len(self._block) - self._next, 1))
            self.take(step)
            size -= step

    def skip_texts(self, count: int, name: str) -> None:
        """Pass over texts, each with its length before it: a vocabulary has hundreds of thousands."""
        unpack, block, at = _LENGTH.unpack_from, self._block, self._next
        for _ in range(count):
            if at + 8 <= len(block):
                (size,) = unpack(block, at)
                after = at + 8 + size
                if size <= MAX_TEXT_BYTES and after <= len(block):
                    at = after
                    continue
            self._next = at
            self.skip(self.count(MAX_TEXT_BYTES, f"bytes in an item of {name}"))
            block, at = self._block, self._next
        self._next = at

    def _check_limit(self, size: int) -> None:
        if size > self.limit - self.at:
            raise self.refuse(f"a header that ends within {self.limit} bytes", f"{size} bytes more at byte {self.at}")

    def _load(self, size: int) -> None:
        # What is left of the block stays; at least `size` bytes from here on are there afterwards.
        self._check_limit(size)
        left = self._block[self._next :]
        self._start, self._next = self.at, 0
        wanted = min(max(size, _BLOCK_BYTES), self.limit - self._start) - len(left)
        self._block = left + self._read(size - len(left), wanted)
        if len(self._block) < size:
            raise self.refuse(f"{size} bytes at byte {self.at}", f"{len(self._block)} bytes: the file ends")

    def _read(self, least: int, most: int) -> bytes:
        """At least so many bytes and at most so many; fewer where the file ends. A stream may give some at a time."""
        data = self.stream.read(most)
        while len(data) < least and (more := self.stream.read(most - len(data))):
            data += more
        return data

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self, most: int, what: str) -> int:
        value = self.number("<Q")
        if value > most:
            raise self.refuse(f"at most {most} {what}", str(value))
        return value

    def name(self, what: str) -> str:
        text = self.take(self.count(MAX_NAME_BYTES, f"bytes in the name of {what}")).decode("latin-1")
        if not _NAME.match(text):
            raise self.refuse(f"a name of printable ASCII for {what}", repr(text))
        return text

    def text(self, name: str) -> str:
        data = self.take(self.count(MAX_TEXT_BYTES, f"bytes in {name}"))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"UTF-8 text in {name}", "other bytes") from None

    def value(self, kind: int, name: str) -> Scalar | None:
        if kind == _STRING:
            return self.text(name)
        if kind == _ARRAY:
            self._skip_array(name)
            return None
        if kind not in _SCALARS:
            raise self.refuse(f"a known value type in {name}", str(kind))
        form = _SCALARS[kind]
        value: Scalar = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def _skip_array(self, name: str) -> None:
        kind = self.number("<I")
        count = self.count(MAX_ARRAY, f"items in {name}")
        if kind in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            self.skip_texts(count, name)
        else:
            raise self.refuse(f"an array of numbers or texts in {name}", f"type {kind}")
