"""Writing bundles to sets of sticks: what goes where, what is left out, what is replaced, and what is never deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.chunking.chunker import Source
from appliance.keys.workspace import Workspace
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.check import check_blobs
from bundles.medium import Medium
from bundles.medium_check import check_medium
from bundles.oci.layout import BLOB_FOLDER, Layout
from bundles.report import format_size
from bundles.stick.card import read_card
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.writing.writer import WriteChoice, WrittenSet, write_sticks
from signing.digest import Digest
from signing.errors import ApplianceError, NextStickError, UsageError
from signing.floors import Floors
from tests.toy import NOW, build_toy

FILES = [Source(f"files/{number}.txt", "config", data=f"{number} ".encode() * 20_000) for number in range(8)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, Path]:
    """Two versions of a bundle in one workspace; the second shares most of its files with the first."""
    folder = tmp_path_factory.mktemp("workspace")
    _, first = build_toy(folder, extra=FILES)
    workspace, second = build_toy(folder, "1.1.0", note="another note", extra=FILES[2:])
    return workspace, first, second


def half(built: tuple[Workspace, Path, Path]) -> int:
    """Room for what every stick needs, what is kept free, and about half of the blobs."""
    blobs = [path.stat().st_size for path in (built[1] / BLOB_FOLDER).iterdir()]
    beside = sum(path.stat().st_size + 512 for path in built[1].rglob("*") if path.is_file()) - sum(blobs)
    return beside + (1 << 20) + (1 << 14) + sum(blobs) * 6 // 10


def opened(built: tuple[Workspace, Path, Path], *paths: Path) -> OpenMedia:
    return open_media(paths, by_newest(built[0].root_file.read_bytes(), Floors(), NOW))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """How much room the stick at each path has at the beginning; others have plenty."""
    rooms: dict[Path, int] = {}

    def free_bytes(medium: Medium) -> tuple[int, int]:
        used = sum(path.stat().st_size for path in (medium.root / BLOB_FOLDER).glob("*"))
        return rooms.get(medium.root, 1 << 40) - used, 1

    monkeypatch.setattr(Medium, "free_bytes", free_bytes)
    return rooms


def names(stick: Path) -> set[str]:
    return set(os.listdir(stick / BLOB_FOLDER))


def digests(bundle: Bundle) -> set[Digest]:
    return {chunk.sha256 for chunk in bundle.blobs}


def test_a_bundle_over_three_sticks_is_whole_and_each_states_its_place(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    sticks = [tmp_path / name for name in "abc"]
    free.update(dict.fromkeys(sticks, half(built)))
    media = opened(built, built[1])
    written = write_sticks(media, sticks)
    assert not written.left
    assert set.union(*map(names, sticks)) == digests(media.bundles[0].value)
    cards = [card for stick in sticks if (card := read_card(Layout(stick)))]
    assert [(card.number, card.of) for card in cards] == [(1, 3), (2, 3), (3, 3)]
    assert len({card.set for card in cards}) == 1
    bundle = media.bundles[0].value
    for number, chunk in enumerate(bundle.blobs, 1):
        holders = {at for at, stick in enumerate(sticks, 1) if chunk.sha256 in names(stick)}
        assert set(cards[2].sticks_with(bundle.manifest, number)) == holders
    joined = opened(built, *sticks)
    joined.check()
    assert not joined.source.missing(bundle)
    assert sum(one.blobs for one in written.sticks) == sum(len(names(stick)) for stick in sticks)


def test_the_rest_goes_to_further_sticks_that_are_asked_for(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    sticks = [tmp_path / name for name in "abc"]
    free.update(dict.fromkeys(sticks, half(built)))
    asked: list[int] = []

    def next_sticks(left_bytes: int) -> Sequence[Path]:
        asked.append(left_bytes)
        return [sticks[len(asked)]]

    written = write_sticks(opened(built, built[1]), sticks[:1], WriteChoice(next_sticks=next_sticks))
    assert [one.path for one in written.sticks] == sticks[: len(asked) + 1]
    assert asked == sorted(asked, reverse=True)
    assert not written.left
    last = read_card(Layout(written.sticks[-1].path))
    assert last is not None
    assert (last.number, last.of) == (len(asked) + 1, len(asked) + 1)
    first = read_card(Layout(sticks[0]))
    assert first is not None
    assert (first.number, first.of) == (1, None)


def test_where_nobody_brings_a_stick_the_rest_is_named_and_only_that_is_written_later(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    free[one] = half(built)
    media = opened(built, built[1])
    written = write_sticks(media, [one], WriteChoice(next_sticks=lambda _: ()))
    left = {chunk.sha256 for chunk in written.left}
    assert left
    assert left == digests(media.bundles[0].value) - names(one)
    write_sticks(media, [two], WriteChoice(wanted=left))
    common = {media.bundles[0].value.manifest, media.bundles[0].value.config.sha256}
    assert names(two) == left | common
    assert not opened(built, one, two).source.missing(media.bundles[0].value)


def test_a_further_stick_that_holds_another_bundle_is_not_touched_and_another_one_is_asked_for(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    other, sticks, said = tmp_path / "other", [tmp_path / "one", tmp_path / "two"], list[str]()
    write_sticks(opened(built, built[2]), [other])
    before = names(other)
    free[sticks[0]] = half(built)
    waiting = [other, sticks[1]]
    choice = WriteChoice(next_sticks=lambda _: [waiting.pop(0)], announce=said.append)
    assert not write_sticks(opened(built, built[1]), sticks[:1], choice).left
    assert names(other) == before
    assert [line.split("(")[-1] for line in said if line.startswith(f"{other} is not used: ")] == [
        "stick.other-bundle)"
    ]


def test_what_goes_to_which_stick_is_shown_before_it_is_written(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    sticks, said = [tmp_path / "a", tmp_path / "b"], list[str]()
    free[sticks[0]] = half(built)
    media = opened(built, built[1])

    def announce(line: str) -> None:
        said.append(line)
        assert not any((path / "blobs").exists() for path in sticks)

    choice = WriteChoice(announce=announce, parity_stick=lambda _: tmp_path / "p")
    written = write_sticks(media, sticks, choice)
    counts = [(one.path, one.blobs) for one in written.sticks[:2]]
    assert [line.partition(" to write")[0] for line in said[:2]] == [
        f"stick {number}, {path}: {blobs} blobs" for number, (path, blobs) in enumerate(counts, 1)
    ]
    assert said[2:] == [f"one stick more for the parity: {format_size(written.parity_bytes)}"]
    said.clear()
    write_sticks(media, [tmp_path / "whole"], WriteChoice(announce=said.append))
    assert said == []


def test_a_second_writing_writes_nothing(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    sticks = [tmp_path / name for name in "ab"]
    free.update({sticks[0]: half(built), sticks[1]: 1 << 30})
    media = opened(built, built[1])
    write_sticks(media, sticks)
    before = {path: path.stat().st_mtime_ns for stick in sticks for path in stick.rglob("*") if path.is_file()}
    again = write_sticks(media, sticks)
    assert [one.blobs for one in again.sticks] == [0, 0]
    assert before == {path: path.stat().st_mtime_ns for stick in sticks for path in stick.rglob("*") if path.is_file()}


def test_two_bundles_lie_on_one_stick_and_share_their_blobs(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    media = opened(built, built[1], built[2])
    write_sticks(media, [tmp_path / "stick"])
    found = opened(built, tmp_path / "stick")
    found.check()
    assert [one.value.label for one in found.bundles] == ["toy 1.0.0", "toy 1.1.0"]
    assert names(tmp_path / "stick") == set.union(*(digests(one.value) for one in media.bundles))
    for one in found.bundles:
        check_blobs(Layout(tmp_path / "stick"), one.value)


def test_a_bundle_is_added_to_a_stick_that_holds_another_where_both_are_named(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1]), [stick])
    before = names(stick)
    with pytest.raises(UsageError) as caught:
        write_sticks(opened(built, built[2]), [stick])
    assert (caught.value.code, names(stick)) == ("stick.other-bundle", before)
    written = write_sticks(opened(built, built[1], built[2]), [stick])
    assert 0 < written.sticks[0].blobs == len(names(stick) - before)
    assert before < names(stick)
    opened(built, stick).check()


def replace(built: tuple[Workspace, Path, Path], stick: Path, answer: bool) -> tuple[WrittenSet, list[str]]:
    listed: list[str] = []

    def may_remove(path: Path, paths: Sequence[str], size: int) -> bool:
        assert path == stick
        assert size == sum((stick / one).stat().st_size for one in paths)
        listed.extend(paths)
        return answer

    return write_sticks(opened(built, built[2]), [stick], WriteChoice(may_remove=may_remove)), listed


def test_what_no_bundle_needs_is_listed_and_removed_after_a_yes(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1]), [stick])
    before, shared = names(stick), digests(opened(built, built[1]).bundles[0].value)
    new = digests(opened(built, built[2]).bundles[0].value)
    written, listed = replace(built, stick, True)
    assert {path.rpartition("/")[2] for path in listed if path.startswith(BLOB_FOLDER)} == before - new
    assert written.sticks[0].filling.removed == tuple(listed)
    assert names(stick) == new
    assert written.sticks[0].blobs == len(new - shared)
    found = opened(built, stick)
    found.check()
    assert [one.value.label for one in found.bundles] == ["toy 1.1.0"]


def test_after_a_no_nothing_is_removed_or_written(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1]), [stick])
    before = {path: path.stat().st_mtime_ns for path in stick.rglob("*")}
    with pytest.raises(UsageError) as caught:
        replace(built, stick, False)
    assert caught.value.code == "stick.other-bundle"
    assert {path: path.stat().st_mtime_ns for path in stick.rglob("*")} == before


def test_an_interrupted_replacing_is_finished_by_the_next_run(
    built: tuple[Workspace, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1]), [stick])

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("bundles.stick.writing.filling.write_blobs", fails)
        replace(built, stick, True)
    with pytest.raises(ApplianceError):
        opened(built, stick)
    replace(built, stick, True)
    opened(built, stick).check()


def test_what_is_no_name_of_the_format_is_never_removed(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    write_sticks(opened(built, built[1]), [stick])
    (stick / "blobs/sha256/notes.txt").write_bytes(b"mine")
    (stick / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ApplianceError) as caught:
        replace(built, stick, True)
    assert caught.value.code == "layout.unlisted"
    assert (stick / "blobs/sha256/notes.txt").read_bytes() == (stick / "holiday.jpg").read_bytes() == b"mine"


def test_blobs_of_an_older_bundle_are_left_out_of_a_delta(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    old, media = opened(built, built[1]).bundles[0].value, opened(built, built[2])
    new = media.bundles[0].value
    wanted = digests(new) - digests(old)
    write_sticks(media, [tmp_path / "stick"], WriteChoice(wanted=wanted))
    assert names(tmp_path / "stick") == wanted | {new.manifest, new.config.sha256}
    found = opened(built, tmp_path / "stick")
    found.check()
    assert set(found.source.missing(new)) == {chunk for chunk in new.blobs if chunk.sha256 not in wanted} - {
        new.config
    } - {chunk for chunk in new.blobs if chunk.sha256 == new.manifest}


def test_a_stick_without_room_for_what_every_stick_needs_is_refused_before_anything_is_written(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    free[tmp_path / "tiny"] = 1 << 20
    with pytest.raises(UsageError) as caught:
        write_sticks(opened(built, built[1]), [tmp_path / "tiny"])
    assert caught.value.code == "stick.too-small"
    assert not any((tmp_path / "tiny").iterdir())


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_with_a_parity_any_one_stick_may_be_lost(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int], lost: int
) -> None:
    sticks = [tmp_path / name for name in "ab"]
    free.update({sticks[0]: half(built)})
    media = opened(built, built[1])
    written = write_sticks(media, sticks, WriteChoice(parity_stick=lambda _: tmp_path / "p"))
    assert written.parity_bytes
    cards = [read_card(Layout(one.path)) for one in written.sticks]
    assert [(card.number, card.of) for card in cards if card] == [(1, 3), (2, 3), (3, 3)]
    kept = [stick for at, stick in enumerate([*sticks, tmp_path / "p"]) if at != lost]
    joined = opened(built, *kept)
    joined.check()
    assert not joined.source.missing(media.bundles[0].value)


def test_a_stick_that_is_pulled_out_and_leaves_its_folder_is_named_and_the_machine_keeps_nothing(
    built: tuple[Workspace, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is the same; what is mounted there is not."""
    stick, real = tmp_path / "stick", os.stat
    stick.mkdir()
    placed: list[str] = []

    def stat(path: str | Path, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if Path(path) == stick and (stick / ".writing").exists():
            fields = list(found)
            fields[2] += 1
            return os.stat_result(fields)
        return found

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(Medium, "place_part", lambda _self, _name, path: placed.append(path))
    with pytest.raises(ApplianceError):
        write_sticks(opened(built, built[1]), [stick])
    assert not placed


def test_a_stick_whose_device_is_gone_is_said_to_be_pulled_out(
    built: tuple[Workspace, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ApplianceError("write.failed", "stick")

    monkeypatch.setattr("bundles.stick.writing.filling.write_blobs", fails)
    monkeypatch.setattr("bundles.stick.writing.stick_state.StickState.is_gone", property(lambda _: True))
    with pytest.raises(NextStickError) as caught:
        write_sticks(opened(built, built[1]), [tmp_path / "stick"])
    assert caught.value.code == "stick.unplugged"


def test_newest_metadata_come_from_whichever_bundle_has_them(
    built: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    write_sticks(opened(built, built[1], built[2]), [tmp_path / "stick"])
    newest = (built[2] / "metadata/timestamp.json").read_bytes()
    assert (built[1] / "metadata/timestamp.json").read_bytes() != newest
    assert (tmp_path / "stick/metadata/timestamp.json").read_bytes() == newest


def test_one_bundle_of_two_is_checked_as_before(built: tuple[Workspace, Path, Path], tmp_path: Path) -> None:
    write_sticks(opened(built, built[1]), [tmp_path / "stick"])
    found = open_bundle(tmp_path / "stick", built[0].root_file.read_bytes(), Floors(), NOW)
    check_medium(Layout(tmp_path / "stick"), (found,))


def test_a_set_that_is_continued_by_a_further_call_goes_on_with_its_numbers(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    free[first] = half(built)
    media = opened(built, built[1])
    left = write_sticks(media, [first]).left
    write_sticks(media, [second], WriteChoice(wanted={chunk.sha256 for chunk in left}, before=1))
    card = read_card(Layout(second))
    assert card is not None
    assert (card.number, card.of) == (2, 2)
    number = media.bundles[0].value.blobs.index(left[0]) + 1
    assert card.sticks_with(media.bundles[0].value.manifest, number) == (2,)
    assert not opened(built, first, second).notices


def test_a_further_stick_that_takes_nothing_is_left_as_it_is_and_another_one_is_asked_for(
    built: tuple[Workspace, Path, Path], tmp_path: Path, free: dict[Path, int]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    free[first] = half(built)
    brought, said = iter([[first], [second]]), list[str]()
    choice = WriteChoice(next_sticks=lambda _: next(brought), announce=said.append)
    written = write_sticks(opened(built, built[1]), [first], choice)
    assert [one.path for one in written.sticks] == [first, second]
    assert any(line.startswith(f"{first} is not used: ") for line in said)
    card = read_card(Layout(first))
    assert card is not None
    assert card.number == 1
