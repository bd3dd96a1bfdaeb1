"""With one stick more, any one stick of a set may be lost; what is rebuilt counts by its digest alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.chunks.chunk import Chunk
from bundles.chunks.source import Seed
from bundles.oci.layout import Layout, blob_path
from bundles.parity import source, streams
from bundles.parity.source import ParitySource
from bundles.parity.streams import LIST_FILE, ParityStreams, plan_parity, read_parity, write_parity, xor
from signing.digest import sha256
from signing.errors import DamagedError
from signing.strictjson import to_file
from tests.bundles.plain_bundle import put_blobs
from tests.sim.noise import noise
from tests.sim.sticks import SimStick

PIECE, BLOCK = 64, 24


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streams, source):
        monkeypatch.setattr(module, "PIECE_BYTES", PIECE)
        monkeypatch.setattr(module, "_BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(streams, "_XOR_BYTES", 16)


class Media:
    """A set of sticks in folders, each with some blobs, and one with the parity; a `ChunkSource` over those here."""

    def __init__(self, folder: Path, sticks: Sequence[Sequence[bytes]]) -> None:
        self.blobs = [list(dict.fromkeys(blobs)) for blobs in sticks]
        self.layouts = [Layout(folder / f"stick-{number}") for number in range(len(sticks))]
        for layout, blobs in zip(self.layouts, self.blobs, strict=True):
            layout.path.mkdir(parents=True)
            put_blobs(layout.path, blobs)
        self.parity = Layout(folder / "parity-stick")
        self.parity.path.mkdir()
        self.plan = plan_parity([[chunk_of(data) for data in blobs] for blobs in self.blobs])
        self.written = write_parity(self.plan, self.open_chunk, self.parity)

    def holds(self, chunk: Chunk) -> bool:
        return any((layout.path / blob_path(chunk.sha256)).exists() for layout in self.layouts)

    def open_chunk(self, chunk: Chunk) -> int:
        layout = next(one for one in self.layouts if (one.path / blob_path(chunk.sha256)).exists())
        return layout.open_chunk(chunk)

    def lose(self, number: int) -> list[bytes]:
        """Lose a stick: its own blobs."""
        elsewhere = {data for at, blobs in enumerate(self.blobs) if at != number for data in blobs}
        shutil.rmtree(self.layouts[number].path)
        return [data for data in self.blobs[number] if data not in elsewhere]

    def source(self) -> ParitySource:
        return ParitySource(lambda: [self.parity], self)


def chunk_of(data: bytes) -> Chunk:
    return Chunk(sha256(data), len(data))


def read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def some(seed: int, size: int) -> bytes:
    return b"".join(noise(seed, size))


THREE = ([some(1, 100), some(2, 30)], [some(3, 7), some(4, 64), some(5, 1)], [some(6, 200)])
BLOBS = st.lists(st.binary(min_size=1, max_size=200), max_size=6)


@pytest.mark.parametrize("lost", range(3))
def test_any_one_stick_of_three_may_be_lost(tmp_path: Path, lost: int) -> None:
    media = Media(tmp_path, THREE)
    for data in media.lose(lost):
        source = media.source()
        assert source.holds(chunk_of(data))
        assert read(source.open_chunk(chunk_of(data))) == data


@settings(max_examples=60, deadline=None)
@given(st.lists(BLOBS, min_size=1, max_size=5), st.integers(0, 4))
def test_every_blob_of_a_lost_stick_is_rebuilt(sticks: list[list[bytes]], lost: int) -> None:
    with TemporaryDirectory() as folder:
        media = Media(Path(folder), sticks)
        source = media.source()
        assert all(read(source.open_chunk(chunk_of(data))) == data for data in media.lose(lost % len(sticks)))


def test_parity_is_as_long_as_the_fullest_stick_and_no_longer(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    assert media.plan.size_bytes == 200
    pieces = {path: chunk for path, chunk in media.written.items() if path != LIST_FILE}
    assert [chunk.size for chunk in pieces.values()] == [64, 64, 64, 8]
    assert sum(file.stat().st_size for file in (media.parity.path / "parity").glob("*.xor")) == 200
    for path, chunk in media.written.items():
        assert chunk_of((media.parity.path / path).read_bytes()) == chunk


def test_a_blob_on_several_sticks_is_counted_once() -> None:
    shared, own = chunk_of(b"shared"), chunk_of(b"own")
    plan = plan_parity([[shared, own], [shared], [shared, shared]])
    assert plan.streams == ((shared, own),)


def test_two_lost_sticks_are_missing_and_not_guessed(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    lost = [*media.lose(0), *media.lose(2)]
    source = media.source()
    held = [data for data in lost if source.holds(chunk_of(data))]
    assert held == []
    with pytest.raises(DamagedError) as refused:
        source.open_chunk(chunk_of(lost[0]))
    assert refused.value.code == "blob.missing"


def test_sticks_that_are_read_one_after_the_other_rebuild_from_the_files_of_the_host(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    # Two sticks were copied into one file, and are not here any more.
    file, at = tmp_path / "model.partial", 10
    whole, places = bytearray(at), {}
    for data in (*THREE[0], *THREE[1]):
        places[sha256(data)] = (Seed(file, len(whole)), Seed(tmp_path / "model", len(whole)))
        whole += data
    source = ParitySource(lambda: [media.parity], media, lambda digest: places.get(digest, ()))
    file.write_bytes(whole)
    for number in range(3):
        media.lose(number)
    lost = THREE[2][0]
    assert read(source.open_chunk(chunk_of(lost))) == lost
    # The file gets its final name while the copy goes on.
    file.rename(tmp_path / "model")
    assert read(source.open_chunk(chunk_of(lost))) == lost


def test_a_file_that_gets_its_final_name_while_it_is_opened_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = Media(tmp_path, THREE)
    whole, places = bytearray(), {}
    for data in (*THREE[0], *THREE[1]):
        places[sha256(data)] = (Seed(tmp_path / "m.partial", len(whole)), Seed(tmp_path / "m", len(whole)))
        whole += data
    (tmp_path / "m.partial").write_bytes(whole)
    for number in range(3):
        media.lose(number)
    real = ParitySource._place

    def rename(self: ParitySource, chunk: Chunk) -> Seed | None:
        place = real(self, chunk)
        if place is not None and place.path.suffix:
            place.path.rename(tmp_path / "m")
        return place

    found = ParitySource(lambda: [media.parity], media, lambda digest: places.get(digest, ()))
    lost = chunk_of(THREE[2][0])
    monkeypatch.setattr(found, "_find", lambda chunk: (media.parity, media.plan, *media.plan.places[chunk]))
    monkeypatch.setattr(ParitySource, "_place", rename)
    assert read(found.open_chunk(lost)) == THREE[2][0]
    assert (tmp_path / "m").exists()


def test_seeds_of_the_host_count_after_they_were_hashed(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    places = {}
    for number, data in enumerate((*THREE[0], *THREE[1])):
        (tmp_path / f"seed-{number}").write_bytes(data)
        places[sha256(data)] = (Seed(tmp_path / "absent", 0), Seed(tmp_path / f"seed-{number}", 0))
    for number in range(3):
        media.lose(number)
    lost = chunk_of(THREE[2][0])
    assert (
        read(ParitySource(lambda: [media.parity], media, lambda digest: places.get(digest, ())).open_chunk(lost))
        == THREE[2][0]
    )
    (tmp_path / "seed-0").write_bytes(bytes(len(THREE[0][0])))
    assert not ParitySource(lambda: [media.parity], media, lambda digest: places.get(digest, ())).holds(lost)


def test_a_wrong_parity_is_damage_that_names_the_parity_and_is_not_tried_again(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    lost = chunk_of(media.lose(0)[0])
    piece = media.parity.path / "parity/000001.xor"
    piece.write_bytes(bytes([piece.read_bytes()[0] ^ 1]) + piece.read_bytes()[1:])
    source = media.source()
    with pytest.raises(DamagedError) as refused:
        source.open_chunk(lost)
    assert (refused.value.code, refused.value.exit_code) == ("parity.differs", 3)
    assert not source.holds(lost)


@pytest.mark.parametrize("fault", ["missing", "shorter", "unreadable"])
def test_a_piece_that_cannot_be_read_is_damage(tmp_path: Path, fault: str) -> None:
    media = Media(tmp_path, THREE)
    lost = chunk_of(media.lose(0)[0])
    stick = SimStick(media.parity.path)
    if fault == "missing":
        (stick.root / "parity/000001.xor").unlink()
    elif fault == "shorter":
        stick.truncate("parity/000001.xor", 5)
    else:
        stick.fail_to_read("parity/000001.xor")
    with stick.plugged(), pytest.raises(DamagedError) as refused:
        ParitySource(lambda: [Layout(stick.root)], media).open_chunk(lost)
    assert refused.value.code in ("parity.missing", "parity.unreadable")


def test_a_damaged_source_is_an_error_and_leaves_no_list(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    (media.layouts[0].path / blob_path(sha256(THREE[0][0]))).write_bytes(bytes(100))
    other = Layout(tmp_path / "other")
    other.path.mkdir()
    with pytest.raises(DamagedError) as refused:
        write_parity(media.plan, media.open_chunk, other)
    assert refused.value.code == "blob.differs"
    assert read_parity(other) is None


def test_writing_again_writes_nothing(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    before = {path: path.stat().st_ino for path in (media.parity.path / "parity").iterdir()}
    assert write_parity(media.plan, media.open_chunk, media.parity) == media.written
    assert {path: path.stat().st_ino for path in (media.parity.path / "parity").iterdir()} == before


HEX = "0" * 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        to_file({"streams": []}),
        to_file({"streams": [[]]}),
        to_file({"streams": [[[HEX, 0]]]}),
        to_file({"streams": [[[HEX, (64 << 20) + 1]]]}),
        to_file({"streams": [[[HEX, 1], [HEX, 1]]]}),
        to_file({"streams": [[["../../etc/passwd", 1]]]}),
        to_file({"streams": [[[HEX, 1]], 3]}),
        to_file({"streams": [[[HEX, True]]]}),
        to_file({"streams": [[[HEX, 1]]], "more": 1}),
        to_file({"streams": [[[f"{number:064x}", 1]] for number in range(1001)]}),
        b'{"streams": [[["' + HEX.encode() + b'", 1]]]}',
    ],
)
def test_a_list_of_another_form_is_no_parity(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "parity").mkdir()
    (tmp_path / LIST_FILE).write_bytes(data)
    assert read_parity(Layout(tmp_path)) is None


def test_a_link_in_place_of_the_list_is_no_parity(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    listed = media.parity.path / LIST_FILE
    listed.rename(tmp_path / "elsewhere")
    listed.symlink_to(tmp_path / "elsewhere")
    assert read_parity(media.parity) is None


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    media = Media(tmp_path, THREE)
    assert read_parity(media.parity) == media.plan
    assert isinstance(read_parity(media.parity), ParityStreams)


@given(st.lists(st.binary(min_size=50, max_size=50), min_size=1, max_size=5))
def test_xor_of_blocks_is_that_of_their_bytes(blocks: list[bytes]) -> None:
    expected = bytearray(50)
    for block in blocks:
        expected = bytearray(one ^ other for one, other in zip(expected, block, strict=True))
    assert xor(blocks) == bytes(expected)
