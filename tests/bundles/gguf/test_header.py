"""Nothing that a GGUF header claims is believed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.chunks.boundaries import cut_gguf, cut_plain
from bundles.gguf.header import GgufHeader, read_header
from signing.digest import sha256
from signing.errors import NotTrustedError
from tests.sim.gguf_files import ARCH, HOSTILE, gguf, head, string_key, tensor_info

MIB = 1 << 20


def read(data: bytes, size: int | None = None) -> GgufHeader:
    return read_header(io.BytesIO(data), len(data) if size is None else size, "x.gguf")


def test_header_of_a_valid_file_is_read() -> None:
    header = read(gguf([string_key("tokenizer.chat_template", "{{ x }}")]))
    assert (header.architecture, header.parameters, header.quantisation) == ("llama", 96, "F32")
    assert header.template_digest == sha256(b"{{ x }}")


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_refused(data: bytes) -> None:
    with pytest.raises(NotTrustedError) as caught:
        read(data)
    assert caught.value.code == "gguf.refused"


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 120))
def test_random_bytes_never_escape_the_tree_of_errors(noise: bytes, at: int) -> None:
    whole = gguf([string_key("tokenizer.chat_template", "{{ x }}")])
    for data in (noise, b"GGUF" + noise, whole[:at] + noise + whole[at + len(noise) :]):
        try:
            header = read(data)
        except NotTrustedError:
            continue
        assert sum(cut_gguf(header)) == len(data)


def sparse(tensors: list[tuple[str, int]], keys: list[bytes] | None = None, tail: int = 0) -> GgufHeader:
    infos, offset = b"", 0
    for name, size in tensors:
        infos += tensor_info(name, [size // 4], 0, offset)
        offset += size + -size % 32
    data = head(1 + len(keys or []), len(tensors)) + ARCH + b"".join(keys or []) + infos
    return read(data, len(data) + -len(data) % 32 + offset + tail)


def test_template_and_big_values_are_cut_off_from_the_header() -> None:
    big = string_key("tokenizer.big", "x" * 70_000)
    template = string_key("tokenizer.chat_template", "t" * 100)
    header = sparse([("blk.0.a", 1024)], [big, template])
    sizes = cut_gguf(header)
    assert sizes[0] == 24 + len(ARCH)
    assert sizes[1:3] == (len(big), len(template))
    assert sum(sizes) == header.file_size


def test_big_tensor_stands_alone_and_is_cut_from_its_own_start() -> None:
    header = sparse([("blk.0.small", 1024), ("blk.0.big", 150 * MIB), ("blk.0.after", 1024)])
    assert cut_gguf(header)[1:] == (1024, 64 * MIB, 64 * MIB, 22 * MIB, 1024)


def test_small_neighbours_of_one_block_share_a_chunk() -> None:
    header = sparse([("blk.0.a", 4 * MIB), ("blk.0.b", 4 * MIB), ("blk.1.a", 4 * MIB), ("output", 64), ("final", 64)])
    assert cut_gguf(header)[1:] == (8 * MIB, 4 * MIB, 64, 64)


def test_shared_chunk_closes_before_64_mib() -> None:
    header = sparse([(f"blk.0.{number}", 7 * MIB) for number in range(10)])
    assert cut_gguf(header)[1:] == (63 * MIB, 7 * MIB)


def test_what_follows_the_last_tensor_is_a_trailer() -> None:
    header = sparse([("blk.0.a", 1000)], tail=77)
    assert cut_gguf(header)[1:] == (1024, 77)


def test_other_files_are_cut_every_64_mib() -> None:
    assert cut_plain(0) == ()
    assert cut_plain(130 * MIB) == (64 * MIB, 64 * MIB, 2 * MIB)


def test_changed_template_changes_few_chunks() -> None:
    one = gguf([string_key("tokenizer.chat_template", "one")], [("blk.0.a", 5000), ("blk.1.a", 5000)])
    two = gguf([string_key("tokenizer.chat_template", "another one")], [("blk.0.a", 5000), ("blk.1.a", 5000)])
    # The template itself, and the rest of the header with its padding; nothing of the weights.
    assert len(chunks(two) - chunks(one)) == 2
    assert len(chunks(one) & chunks(two)) == 3


def chunks(data: bytes) -> set[str]:
    found: set[str] = set()
    at = 0
    for size in cut_gguf(read(data)):
        found.add(sha256(data[at : at + size]))
        at += size
    return found
