"""Whatever a GGUF header says, reading it is bounded, and ends in a refusal or in an account of every byte."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bundles.chunks.boundaries import cut_gguf
from bundles.gguf.header import MAX_KEYS, MAX_WEIGHTS, GgufHeader, read_header
from bundles.gguf.types import TENSOR_TYPES
from signing.errors import NotTrustedError
from tests.sim.gguf_files import ARCH, ARRAY, HOSTILE, TEXT, gguf, head, string_key, tensor_info, text

U64 = st.integers(0, (1 << 64) - 1)
SMALL = st.integers(0, 40)
# Numbers that overflow where somebody adds, multiplies or rounds up without looking.
EDGES = st.sampled_from(
    [0, 1, 31, 32, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 32, (1 << 60) + 1, (1 << 63) - 1, (1 << 64) - 1]
)
NUMBERS = st.one_of(SMALL, EDGES, U64)
NAMES = st.one_of(
    st.sampled_from(["general.alignment", "general.architecture", "tokenizer.chat_template", "a", "blk.0.a"]),
    st.text(max_size=12),
)
FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
MAX_MEMORY_BYTES = 8 << 20
MOST_FILE_BYTES = 1 << 34


class Watched(io.BytesIO):
    """A file that tells how much was asked for at once."""

    asked = 0

    def read(self, size: int | None = -1) -> bytes:
        self.asked = max(self.asked, size if size is not None else -1)
        assert size is not None
        assert size >= 0, "the whole file was read"
        return super().read(size)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> bytes:
    """A typed value: good, claiming another length, or an array of arrays."""
    kind = draw(st.one_of(st.sampled_from([*FORMS, TEXT, ARRAY]), SMALL))
    if kind in FORMS:
        size = struct.calcsize(FORMS[kind])
        return struct.pack("<I", kind) + draw(st.binary(min_size=size, max_size=size))
    if kind == TEXT:
        body = draw(st.binary(max_size=20))
        length = draw(st.one_of(st.just(len(body)), NUMBERS))
        return struct.pack("<IQ", TEXT, length) + body
    if kind == ARRAY:
        inner = draw(st.one_of(st.sampled_from([*FORMS, TEXT, ARRAY]), SMALL))
        count = draw(NUMBERS)
        body = draw(values(depth + 1)) if depth < 6 else b""
        return struct.pack("<IIQ", ARRAY, inner, count) + body
    return struct.pack("<I", kind)


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    return text(draw(NAMES)) + draw(values())


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    dims = draw(st.lists(NUMBERS, max_size=5))
    kind = draw(st.one_of(st.sampled_from(sorted(TENSOR_TYPES)), st.integers(0, (1 << 32) - 1)))
    return tensor_info(draw(NAMES), dims, kind, draw(NUMBERS))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file whose every part is drawn on its own, so that they agree or do not."""
    some_keys, some_tensors = draw(st.lists(keys(), max_size=4)), draw(st.lists(tensors(), max_size=4))
    first = [ARCH] if draw(st.booleans()) else []
    counts = draw(st.tuples(st.one_of(st.just(len(some_keys) + len(first)), NUMBERS), st.just(len(some_tensors))))
    data = head(counts[0], draw(st.one_of(st.just(counts[1]), NUMBERS)), draw(st.sampled_from([2, 3, 3, 3, 4])))
    return data + b"".join([*first, *some_keys, *some_tensors]) + draw(st.binary(max_size=600))


def try_to_read(stream: Watched, size: int) -> tuple[GgufHeader | None, NotTrustedError | None]:
    try:
        return read_header(stream, size, "x.gguf"), None
    except NotTrustedError as error:
        return None, error


def read_bounded(data: bytes, size: int) -> GgufHeader | None:
    """Read a header; it must refuse, or account for every byte, and never ask for more than a megabyte at once."""
    stream = Watched(data)
    header, refusal = try_to_read(stream, size)
    assert stream.asked <= 1 << 20
    if header is None:
        assert refusal is not None
        assert (refusal.code, len(refusal.found) <= 200) == ("gguf.refused", True)
        return None
    assert sum(cut_gguf(header)) == size
    assert len(header.spans) <= MAX_KEYS
    assert len({span.name for span in header.spans}) == len(header.spans)
    assert all(1 <= tensor.weights <= MAX_WEIGHTS for tensor in header.tensors)
    ends = [tensor.offset + tensor.size for tensor in header.tensors]
    starts = [tensor.offset for tensor in header.tensors]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)), "tensors overlap"
    assert not ends or header.data_start + ends[-1] <= size
    assert all(start % header.alignment == 0 for start in starts)
    return header


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.one_of(st.just(-1), NUMBERS))
@example(gguf([string_key("tokenizer.chat_template", "{{ x }}")]), -1)
@example(gguf([string_key("tokenizer.chat_template", "")]), 0)
def test_any_header_is_refused_or_accounts_for_every_byte(data: bytes, size: int) -> None:
    read_bounded(data, len(data) if size < 0 else min(size, MOST_FILE_BYTES))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_a_good_or_a_hostile_file_is_bounded(data: Any) -> None:
    whole = bytearray(data.draw(st.sampled_from([gguf(tail=b"x" * 9), *HOSTILE.values()])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(whole) - 1)))
        new = data.draw(st.one_of(st.binary(max_size=9), NUMBERS.map(lambda number: struct.pack("<Q", number))))
        whole[at : at + len(new)] = new
    read_bounded(bytes(whole), len(whole))


@given(st.integers(0, len(gguf()) - 1))
def test_file_that_ends_early_is_refused_wherever_it_ends(size: int) -> None:
    assert read_bounded(gguf()[:size], size) is None


def test_long_array_is_passed_over_piece_by_piece() -> None:
    array = text("a") + struct.pack("<IIQ", ARRAY, 10, 1 << 20) + bytes(8 << 20)
    assert read_bounded(head(2) + ARCH + array, len(head(2) + ARCH + array)) is not None


def test_claims_of_any_size_take_no_memory() -> None:
    claims = [data + bytes(64) for data in HOSTILE.values()]
    tracemalloc.start()
    try:
        for claim in claims:
            read_bounded(claim, 1 << 34)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_deep_arrays_cost_no_depth() -> None:
    nested = text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 20_000
    assert read_bounded(head(2) + ARCH + nested, 1 << 30) is None
