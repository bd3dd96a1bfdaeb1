"""Which stick gets which blobs: nothing twice, nothing lost, what is worth most first, no limit passed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.bundle import Bundle
from bundles.chunks.chunk import Chunk
from bundles.contents.contents import Contents, File, Needs, Serve
from bundles.stick.writing.placement import (
    FAT_MAX_BLOBS,
    FAT_MAX_FILE_BYTES,
    Room,
    common_blobs,
    order_by_worth,
    place,
    room_of,
)
from signing.digest import sha256

BIG = 1 << 40


def chunk(name: str, size: int) -> Chunk:
    return Chunk(sha256(name.encode()), size)


def bundle(files: Sequence[tuple[str, str, bool, Sequence[int]]], name: str = "toy") -> Bundle:
    """A bundle of files of these paths, kinds and marks, with chunks of these sizes."""
    made = []
    for path, kind, bootstrap, sizes in files:
        chunks = tuple(chunk(f"{path} {number}", size) for number, size in enumerate(sizes))
        made.append(File(path, kind, 0o644, sum(sizes), sha256(path.encode()), chunks, bootstrap=bootstrap))
    contents = Contents(name, "1.0.0", 0, (), Needs("", "", "", (), 0, 0), Serve(), (), tuple(made))
    return Bundle(sha256(f"manifest of {name}".encode()), 700, chunk(f"contents of {name}", 900), contents)


TOY = bundle(
    [
        ("models/large.gguf", "model", False, [50_000, 60_000]),
        ("models/small.gguf", "model", False, [20_000]),
        ("playbooks/site.yml", "playbook", False, [400]),
        ("runtime/engine.whl", "runtime", False, [30_000]),
        ("wheels/click.whl", "wheel", True, [9_000]),
    ]
)


def test_what_is_worth_most_comes_first_and_the_smallest_model_before_the_larger() -> None:
    names = ["wheels/click.whl 0", "playbooks/site.yml 0", "runtime/engine.whl 0", "models/small.gguf 0"]
    names += ["models/large.gguf 0", "models/large.gguf 1"]
    assert [one.sha256 for one in order_by_worth([TOY])] == [sha256(name.encode()) for name in names]


def test_sticks_are_filled_in_their_order_and_the_rest_is_left() -> None:
    rooms = [Room(50_000, block_bytes=1), Room(60_000, block_bytes=1)]
    placed = place([TOY], rooms)
    sizes = [[one.size for one in share or ()] for share in placed.shares]
    assert sizes == [[700, 900, 9_000, 400, 30_000], [700, 900, 20_000]]
    assert ([one.size for one in placed.left], placed.left_bytes) == ([50_000, 60_000], 110_000)


def test_blob_that_lies_on_one_stick_is_not_placed_on_another() -> None:
    held = {order_by_worth([TOY])[0].sha256}
    placed = place([TOY], [Room(BIG), Room(0, held | {one.sha256 for one in common_blobs([TOY])})])
    one, two = ({one.sha256 for one in share or ()} for share in placed.shares)
    assert held <= two
    assert not held & one
    assert not placed.left


def test_only_wanted_blobs_are_placed_and_the_common_ones_always() -> None:
    wanted = {order_by_worth([TOY])[2].sha256}
    share = place([TOY], [Room(BIG)], wanted).shares[0]
    assert {one.sha256 for one in share or ()} == wanted | {one.sha256 for one in common_blobs([TOY])}


def test_stick_without_room_for_what_every_stick_needs_gets_nothing() -> None:
    placed = place([TOY], [Room(5000), Room(BIG)], small_files=[3000, 100])
    assert placed.shares[0] is None
    assert not placed.left


def test_fat32_gets_no_more_than_10_000_blobs_and_another_file_system_more() -> None:
    many = bundle([(f"files/{number}", "config", False, [1]) for number in range(FAT_MAX_BLOBS + 5)])
    fat, other = room_of("vfat", BIG, 4096, ()), room_of("ext4", BIG, 4096, ())
    placed = place([many], [fat])
    assert (len(placed.shares[0] or ()), len(placed.left)) == (FAT_MAX_BLOBS, 7)
    assert not place([many], [other]).left
    assert not place([many], [fat, fat]).left


def test_fat32_counts_the_blobs_that_lie_there() -> None:
    many = bundle([(f"files/{number}", "config", False, [1]) for number in range(20)])
    others = [sha256(b"%d" % number) for number in range(FAT_MAX_BLOBS - 12)]
    placed = place([many], [room_of("vfat", BIG, 4096, others)])
    assert len(placed.left) == 10


@pytest.mark.parametrize(("size", "fits"), [(FAT_MAX_FILE_BYTES, True), (FAT_MAX_FILE_BYTES + 1, False)])
def test_fat32_gets_no_file_of_4_gib(size: int, fits: bool) -> None:
    assert FAT_MAX_FILE_BYTES == 4 * 1024**3 - 1
    one = bundle([("models/one.gguf", "model", False, [size])])
    assert (not place([one], [room_of("vfat", BIG, 4096, ())]).left) is fits
    assert not place([one], [room_of("exfat", BIG, 4096, ())]).left


def test_two_bundles_share_what_they_have_in_common() -> None:
    files: list[tuple[str, str, bool, Sequence[int]]] = [("files/one", "config", False, [10])]
    first, second = bundle(files, "first"), bundle([*files, ("files/two", "config", False, [20])], "second")
    share = place([first, second], [Room(BIG)]).shares[0]
    assert [one.size for one in share or ()] == [700, 900, 700, 900, 10, 20]


@given(
    st.lists(st.integers(1, 3000), max_size=40),
    st.lists(st.tuples(st.integers(0, 20_000), st.sets(st.integers(0, 39), max_size=5)), max_size=5),
    st.none() | st.sets(st.integers(0, 39)),
    st.sampled_from([1, 512, 4096]),
)
def test_every_wanted_blob_is_placed_or_left_and_no_stick_is_overfull(
    sizes: list[int], sticks: list[tuple[int, set[int]]], chosen: set[int] | None, block: int
) -> None:
    one = bundle([(f"files/{number:02d}", "config", False, [size]) for number, size in enumerate(sizes)])
    chunks = [file.chunks[0] for file in one.contents.files]
    wanted = None if chosen is None else {chunks[at].sha256 for at in chosen if at < len(chunks)}
    rooms = [
        Room(free, {chunks[at].sha256 for at in held if at < len(chunks)}, block, max_blobs=12) for free, held in sticks
    ]
    placed = place([one], rooms, wanted, [100])
    new = [
        [each for each in share if each.sha256 not in room.held]
        for room, share in zip(rooms, placed.shares, strict=True)
        if share is not None
    ]
    for room, share in zip(rooms, placed.shares, strict=True):
        written = [each for each in share or () if each.sha256 not in room.held]
        assert share is None or sum(room.cost(each.size) for each in written) + room.cost(100) <= room.free_bytes
        assert share is None or len(share) <= 12
    common = {each.sha256 for each in common_blobs([one])}
    written_once = [each.sha256 for share in new for each in share if each.sha256 not in common]
    assert len(written_once) == len(set(written_once))
    there = {each.sha256 for share in placed.shares for each in share or ()}
    target = {each.sha256 for each in chunks if wanted is None or each.sha256 in wanted}
    assert target - there == {each.sha256 for each in placed.left}
    assert not there & {each.sha256 for each in placed.left}
