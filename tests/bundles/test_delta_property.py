"""What a change of a GGUF makes somebody carry is what the rule of FORMAT 4 promises, and the file comes out whole."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.chunks import boundaries
from bundles.chunks.boundaries import cut_gguf
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import File
from bundles.delta import missing
from bundles.gguf.header import GgufHeader, read_header
from signing.digest import sha256
from tests.sim.gguf_files import ARCH, F32, U32, head, string_key, tensor_info, text
from tests.sim.noise import noise

ALONE, MOST, BIG = 2048, 4096, 512
"""Stand for 8 MiB, 64 MiB and 64 KiB, so that thousands of files can be tried."""
BLOCK = re.compile(r"blk\.\d+\.")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundaries, "ALONE_BYTES", ALONE)
    monkeypatch.setattr(boundaries, "MAX_CHUNK_BYTES", MOST)
    monkeypatch.setattr(boundaries, "BIG_VALUE_BYTES", BIG)


@dataclass(frozen=True)
class Plan:
    """A GGUF: an alignment, a template, the size of a vocabulary, tensors as (name, weights, seed), and a tail."""

    tensors: tuple[tuple[str, int, int], ...]
    alignment: int = 32
    template: str = "one"
    vocabulary: int = 40
    tail: bytes = b""
    keys: tuple[bytes, ...] = field(default=())

    def write(self) -> bytes:
        keys = [
            ARCH,
            text("general.alignment") + struct.pack("<II", U32, self.alignment),
            string_key("tokenizer.vocabulary", "v" * self.vocabulary),
            string_key("tokenizer.chat_template", self.template),
            string_key("general.name", "a name"),
        ]
        infos, body = b"", bytearray()
        for name, weights, seed in self.tensors:
            infos += tensor_info(name, [weights], F32, len(body))
            body += b"".join(noise(seed, weights * 4))
            body += bytes(-len(body) % self.alignment)
        data = head(len(keys), len(self.tensors)) + b"".join(keys) + infos
        return data + bytes(-len(data) % self.alignment) + bytes(body) + self.tail


@dataclass(frozen=True)
class Cut:
    """A file that was cut: its bytes, its header, and its parts as (start, bytes)."""

    data: bytes
    header: GgufHeader
    parts: tuple[tuple[int, bytes], ...]

    @property
    def file(self) -> File:
        chunks = tuple(Chunk(sha256(part), len(part)) for _, part in self.parts)
        return File("models/m/m.gguf", "model", 0o644, len(self.data), sha256(self.data), chunks)


def cut(plan: Plan) -> Cut:
    data = plan.write()
    header = read_header(io.BytesIO(data), len(data), "m.gguf")
    parts, at = [], 0
    for size in cut_gguf(header):
        parts.append((at, data[at : at + size]))
        at += size
    assert at == len(data)
    assert all(0 < len(part) <= MOST for _, part in parts)
    return Cut(data, header, tuple(parts))


def carried(old: Cut, new: Cut) -> list[tuple[int, bytes]]:
    """The parts of the new file that somebody who has the old one lacks; with them, the new file is made again."""
    [entry] = missing([new.file], {chunk.sha256 for chunk in old.file.chunks})
    wanted = {chunk.sha256 for chunk in entry.blobs}
    store = {sha256(part): part for _, part in (*old.parts, *(p for p in new.parts if sha256(p[1]) in wanted))}
    assert b"".join(store[chunk.sha256] for chunk in new.file.chunks) == new.data
    return [(at, part) for at, part in new.parts if sha256(part) in wanted]


def in_weights(new: Cut, parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [(at, part) for at, part in parts if at >= new.header.data_start]


def names_of(new: Cut, parts: list[tuple[int, bytes]]) -> Iterator[str]:
    for at, part in parts:
        start = at - new.header.data_start
        for tensor in new.header.tensors:
            if tensor.offset < start + len(part) and start < tensor.offset + tensor.size:
                yield tensor.name


def group(plan: Plan, name: str) -> set[str]:
    """The tensors that may share a chunk with one: itself, or all small ones of its block."""
    match = BLOCK.match(name)
    weights = {one: count for one, count, _ in plan.tensors}
    if match is None or weights[name] * 4 >= ALONE:
        return {name}
    return {one for one, count, _ in plan.tensors if one.startswith(match.group()) and count * 4 < ALONE}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    sizes = st.integers(1, 400) | st.integers(450, 1500)
    tensors = [("token_embd.weight", draw(sizes), 1)]
    for block in range(draw(st.integers(1, 4))):
        for number in range(draw(st.integers(1, 5))):
            tensors.append((f"blk.{block}.t{number}.weight", draw(sizes), len(tensors) + 1))
    tensors.append(("output.weight", draw(sizes), 99))
    tail = draw(st.sampled_from([b"", b"what follows"]))
    return Plan(tuple(tensors), draw(st.sampled_from([32, 64, 256])), "t" * draw(st.integers(1, 900)),
                draw(st.integers(1, 1500)), tail)  # fmt: skip


CASES = settings(max_examples=40, deadline=None)


@CASES
@given(plans(), st.integers(1, 900))
def test_a_changed_template_carries_the_template_and_the_rest_of_the_header(plan: Plan, length: int) -> None:
    old, new = cut(plan), cut(replace(plan, template="u" * length))
    parts = carried(old, new)
    assert in_weights(new, parts) == []
    # What stands before the template stays: the first thing that is carried is the template's own chunk.
    assert parts[0][1].startswith(text("tokenizer.chat_template"))
    # The vocabulary, which is cut off where it is big, is not carried again.
    assert sum(len(part) for _, part in parts) < length + 120 * (len(plan.tensors) + 3) + plan.alignment + BIG


@CASES
@given(plans(), st.data())
def test_a_changed_tensor_carries_its_own_chunks_and_those_of_small_neighbours(plan: Plan, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(plan.tensors) - 1))
    name, weights, _ = plan.tensors[at]
    changed = replace(plan, tensors=(*plan.tensors[:at], (name, weights, 1000), *plan.tensors[at + 1 :]))
    new = cut(changed)
    parts = carried(cut(plan), new)
    assert parts == in_weights(new, parts)
    assert {name} <= set(names_of(new, parts)) <= group(changed, name)


@CASES
@given(plans(), st.data())
def test_an_added_tensor_carries_itself_its_neighbours_and_the_table(plan: Plan, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(plan.tensors)))
    added = ("blk.0.added.weight", data.draw(st.integers(1, 1500)), 1000)
    changed = replace(plan, tensors=(*plan.tensors[:at], added, *plan.tensors[at:]))
    new = cut(changed)
    parts = carried(cut(plan), new)
    near = {one for name, _, _ in changed.tensors[max(0, at - 1) : at + 2] for one in group(changed, name)}
    # Where a shared chunk closes depends on what is in it, so a block's small tensors move together.
    assert {added[0]} <= set(names_of(new, in_weights(new, parts))) <= near | group(changed, added[0])


@CASES
@given(plans(), st.sampled_from([32, 64, 128, 512]))
def test_another_alignment_carries_what_its_padding_touches(plan: Plan, alignment: int) -> None:
    old, new = cut(plan), cut(replace(plan, alignment=alignment))
    kept = {part for _, part in old.parts}
    parts = in_weights(new, carried(old, new))
    assert not {part for _, part in parts} & kept
    # A tensor that fills both alignments has no padding: unless it shares a chunk, nothing of it is carried.
    whole = {name for name, weights, _ in plan.tensors[:-1] if not weights * 4 % max(alignment, plan.alignment)}
    assert not {name for name in names_of(new, parts) if name in whole and group(plan, name) == {name}}


@CASES
@given(plans())
def test_the_same_model_carries_nothing_and_other_blocks_share_no_chunk(plan: Plan) -> None:
    one = cut(plan)
    assert carried(one, cut(plan)) == []
    for part in in_weights(one, list(one.parts)):
        names = set(names_of(one, [part]))
        assert len(names) <= 1 or len({BLOCK.match(name) and BLOCK.match(name)[0] for name in names}) == 1  # type: ignore[index]
