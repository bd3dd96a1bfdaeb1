"""Sticks of different disks are filled at the same time, with the same result and the same guarantees as one by one."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.builder.chunking.chunker import Source
from appliance.keys.workspace import Workspace
from bundles.chunks import transfer
from bundles.chunks.chunk import Chunk
from bundles.oci.layout import BLOB_FOLDER
from bundles.progress import Progress
from bundles.stick.media import OpenMedia, by_newest, open_media
from bundles.stick.media_set import MediaSet
from bundles.stick.writing.lanes import _Lanes
from bundles.stick.writing.read_back import make_durable
from bundles.stick.writing.writer import WriteChoice, WrittenSet, write_sticks
from signing.digest import sha256
from signing.errors import ApplianceError, NextStickError
from signing.floors import Floors
from tests.bundles.stick.disks import mounted_disk
from tests.sim.sticks import Data, SimStick, plugged
from tests.toy import NOW, build_toy

WAIT_S = 30
"""Never waited for: a test that needs it fails."""
FILES = [Source(f"files/{number}.txt", "config", data=f"{number} ".encode() * 20_000) for number in range(8)]
Built = tuple[Workspace, Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_toy(tmp_path_factory.mktemp("workspace"), extra=FILES)


@pytest.fixture(autouse=True)
def _own_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder counts as a disk of its own."""
    monkeypatch.setattr("bundles.stick.writing.writer.disks_of", lambda path: {str(path)})


class WatchedStick(SimStick):
    """A stick that calls a function before anything is written to a file of it."""

    on_write: Callable[[], object] = staticmethod(lambda: None)

    def take(self, data: Data) -> tuple[Data, OSError | None]:
        self.on_write()
        return super().take(data)


def opened(built: Built) -> OpenMedia:
    return open_media((built[1],), by_newest(built[0].root_file.read_bytes(), Floors(), NOW))


def third(built: Built) -> int:
    """Room for what every stick needs, what is kept free, and less than half of the blobs."""
    blobs = [path.stat().st_size for path in (built[1] / BLOB_FOLDER).iterdir()]
    beside = sum(path.stat().st_size + 512 for path in built[1].rglob("*") if path.is_file()) - sum(blobs)
    return beside + (1 << 20) + (1 << 14) + sum(blobs) * 4 // 10


def make_sticks(folder: Path, rooms: Sequence[int]) -> list[WatchedStick]:
    sticks = []
    for number, room in enumerate(rooms, 1):
        (folder / f"{number}").mkdir()
        sticks.append(WatchedStick(folder / f"{number}"))
        used = room
        # As a real one: what lies there already takes room.
        sticks[-1].free_bytes = lambda root=folder / f"{number}", used=used: (  # type: ignore[method-assign, misc]
            used - sum(path.stat().st_size for path in (root / BLOB_FOLDER).glob("*")),
            1,
        )
    return sticks


@pytest.fixture
def sticks(built: Built, tmp_path: Path) -> list[WatchedStick]:
    """Three sticks that hold the bundle together."""
    return make_sticks(tmp_path, [third(built)] * 2 + [1 << 40])


def write(built: Built, sticks: Sequence[SimStick], choice: WriteChoice | None = None) -> WrittenSet:
    with plugged(*sticks):
        return write_sticks(opened(built), [stick.root for stick in sticks], choice or WriteChoice())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(*sticks: SimStick) -> set[str]:
    return {path.name for stick in sticks for path in (stick.root / BLOB_FOLDER).glob("*")}


def assert_whole(built: Built, *sticks: SimStick) -> None:
    """Together the sticks hold everything, and each blob is what its name says."""
    found = open_media([stick.root for stick in sticks], by_newest(built[0].root_file.read_bytes(), Floors(), NOW))
    found.check()
    assert not found.source.missing(found.bundles[0].value)
    assert not found.notices
    for stick in sticks:
        assert all(sha256(path.read_bytes()) == path.name for path in (stick.root / BLOB_FOLDER).iterdir())


def test_three_sticks_are_written_at_the_same_time(built: Built, sticks: list[WatchedStick]) -> None:
    """Each waits at its first byte until all three are there: one after the other, they would wait for ever."""
    meeting = threading.Barrier(3, timeout=WAIT_S)
    for stick in sticks:
        met: list[int] = []
        stick.on_write = lambda met=met: met or met.append(meeting.wait())  # type: ignore[misc]
    written = write(built, sticks)
    assert [one.path for one in written.sticks] == [stick.root for stick in sticks]
    assert (written.left, written.failed) == ((), ())
    assert_whole(built, *sticks)


def test_sticks_of_one_disk_are_written_one_after_the_other(
    built: Built, sticks: list[WatchedStick], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundles.stick.writing.writer.disks_of", lambda _: {"one"})
    order: list[Path] = []
    for stick in sticks:
        stick.on_write = lambda root=stick.root: order.append(root)  # type: ignore[misc]
    write(built, sticks)
    assert order == sorted(order)
    assert len(set(order)) == 3
    assert_whole(built, *sticks)


def assert_same(built: Built, rooms: Sequence[int]) -> None:
    """The files and the answer are those of writing one stick after the other."""
    trees, told = [], []
    for disks in (lambda path: {str(path)}, lambda _: {"one"}):
        with (
            TemporaryDirectory(dir=built[0].path.parent) as folder,
            mock.patch("bundles.stick.writing.writer.disks_of", disks),
        ):
            made = make_sticks(Path(folder), rooms)
            written = write(built, made)
            trees.append([tree(stick.root) for stick in made])
            told.append([(one.path.name, one.blobs, one.size_bytes, one.checked) for one in written.sticks])
    assert trees[0] == trees[1]
    assert told[0] == told[1]


def test_the_result_is_that_of_writing_one_after_the_other(built: Built) -> None:
    assert_same(built, [third(built)] * 3)


@pytest.mark.ci
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=4))
def test_so_it_is_for_sticks_of_any_size(built: Built, percents: list[int]) -> None:
    assert_same(built, [third(built) * (100 + percent) // 100 for percent in percents])


def fail(stick: WatchedStick, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "full":
        stick.capacity_bytes = 30_000
    elif how == "pulled":
        stick.pull_after_bytes = 30_000
    elif how == "forgets":
        stick.give("index.json", b"wrong")
    else:
        monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", failing_sync(stick.root, []))


def failing_sync(root: Path, calls: list[Path]) -> Callable[[Path], None]:
    """As the kernel: the first call for one stick fails, and a second would answer that all is well."""

    def sync(folder: Path) -> None:
        calls.append(folder)
        if folder == root and calls.count(root) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return sync


CODES = {
    "full": "disk.full",
    "pulled": "stick.unplugged",
    "forgets": "stick.does-not-keep",
    "cannot keep": "write.failed",
}


@pytest.mark.parametrize(("how", "which"), [("full", 0), ("pulled", 1), ("forgets", 2), ("cannot keep", 1)])
def test_a_stick_that_fails_leaves_the_others_to_their_work_and_is_finished_by_the_next_run(
    built: Built, sticks: list[WatchedStick], how: str, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = sticks[which], [stick for stick in sticks if stick is not sticks[which]]
    with monkeypatch.context() as patch:
        fail(bad, how, patch)
        written = write(built, sticks)
    assert [one.path for one in written.sticks] == [stick.root for stick in good]
    (failed,) = written.failed
    assert (failed.path, failed.error.code, failed.filling.number) == (bad.root, CODES[how], which + 1)
    before = [tree(stick.root) for stick in good]
    bad.capacity_bytes = None
    bad.heal()
    if how == "pulled":
        bad.plug_in()
    wanted = {chunk.sha256 for chunk in failed.filling.share}
    again = write(built, [bad], WriteChoice(wanted=wanted, before=which))
    assert (again.left, again.failed) == ((), ())
    assert names(bad) == wanted
    assert [tree(stick.root) for stick in good] == before
    assert_whole(built, *sticks)


def test_the_first_error_of_a_sync_is_final_for_its_stick_alone(
    built: Built, sticks: list[WatchedStick], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr("bundles.stick.writing.read_back.sync_file_system", failing_sync(sticks[0].root, calls))
    written = write(built, sticks)
    (failed,) = written.failed
    assert (failed.path, failed.error.subject) == (sticks[0].root, str(sticks[0].root))
    assert calls.count(sticks[0].root) == 1
    assert all(calls.count(stick.root) == 3 for stick in sticks[1:])
    assert not (sticks[0].root / "index.json").exists()


def test_where_every_stick_fails_the_gravest_error_is_raised(built: Built, sticks: list[WatchedStick]) -> None:
    sticks[0].capacity_bytes = sticks[1].capacity_bytes = 0
    sticks[2].give("index.json", b"wrong")
    with pytest.raises(ApplianceError) as caught:
        write(built, sticks)
    assert (caught.value.code, caught.value.exit_code) == ("stick.does-not-keep", 3)
    assert [error.code for error in caught.value.others] == ["disk.full"] * 2


def test_after_a_failure_no_further_stick_and_no_parity_is_asked_for(
    built: Built, sticks: list[WatchedStick], tmp_path: Path
) -> None:
    asked: list[int] = []

    def next_sticks(size: int) -> Sequence[Path]:
        asked.append(size)
        return ()

    def parity_stick(size: int) -> None:
        asked.append(size)

    sticks[0].capacity_bytes = 0
    choice = WriteChoice(next_sticks=next_sticks, parity_stick=parity_stick)
    for used in (sticks[:2], sticks):
        written = write(built, used, choice)
        assert (len(written.failed), written.parity_bytes, asked) == (1, 0, [])


def test_a_pulled_stick_is_named_and_ends_with_its_own_code(built: Built, sticks: list[WatchedStick]) -> None:
    sticks[1].pull_after_bytes = 30_000
    (failed,) = write(built, sticks).failed
    assert isinstance(failed.error, NextStickError)
    assert str(sticks[1].root) in failed.error.subject


@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupt_ends_all_and_leaves_nothing_half_named(
    built: Built, sticks: list[WatchedStick], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives while all of them are being written to."""
    sticks = sticks[-number:]
    meeting, noticed, real = threading.Barrier(number, timeout=WAIT_S), threading.Event(), _Lanes.end

    def end(lanes: _Lanes[object], error: BaseException) -> None:
        real(lanes, error)
        noticed.set()

    monkeypatch.setattr(_Lanes, "end", end)
    for stick in sticks:
        seen: list[int] = []

        def on_write(seen: list[int] = seen) -> None:
            seen.append(1)
            # At its third file: what was begun before waits for its name.
            if len(seen) == 3:
                if meeting.wait() == 0:
                    os.kill(os.getpid(), signal.SIGINT)
                assert noticed.wait(WAIT_S)

        stick.on_write = on_write
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        write(built, sticks)
    assert threading.active_count() == before
    for stick in sticks:
        assert [path.name for path in stick.root.iterdir() if path.name.startswith(".writing")] == []
        assert not (stick.root / "index.json").exists()
        assert all(sha256(path.read_bytes()) == path.name for path in (stick.root / BLOB_FOLDER).glob("*"))
        stick.on_write = lambda: None
    write(built, sticks)
    assert_whole(built, *sticks)


def test_each_blob_of_one_stick_is_read_once_and_the_source_in_one_place_at_a_time(
    built: Built, sticks: list[WatchedStick], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most, counts, lock = 0, 0, Counter[str](), threading.Lock()
    real_read, real_open = transfer._read, MediaSet.open_chunk

    def read(*words: object) -> int:
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        count: int = real_read(*words)  # type: ignore[arg-type]
        with lock:
            inside -= 1
        return count

    def open_chunk(self: MediaSet, chunk: Chunk) -> int:
        with lock:
            counts[chunk.sha256] += 1
        return real_open(self, chunk)

    monkeypatch.setattr(transfer, "_read", read)
    monkeypatch.setattr(MediaSet, "open_chunk", open_chunk)
    monkeypatch.setattr(transfer, "TURN_BYTES", 1000)
    write(built, sticks)
    bundle = opened(built).bundles[0].value
    common = {bundle.manifest, bundle.config.sha256}
    assert most == 1
    assert counts == {chunk.sha256: 3 if chunk.sha256 in common else 1 for chunk in bundle.blobs}


def test_each_stick_shows_its_own_progress_and_how_it_ended(built: Built, sticks: list[WatchedStick]) -> None:
    events: list[Progress] = []
    sticks[2].capacity_bytes = 30_000
    with plugged(*sticks):
        write_sticks(opened(built), [stick.root for stick in sticks], on_progress=events.append)
    parts = {f"stick {number}, {stick.root.name}" for number, stick in enumerate(sticks, 1)}
    assert {event.part for event in events} == parts
    ends = {event.part: event.task for event in events if event.is_end}
    assert ends.keys() == parts
    assert ends["stick 3, 3"] == "failed: disk.full"
    for part in parts:
        tasks = list(dict.fromkeys(event.task for event in events if event.part == part))
        assert tasks[0] == "waiting"
        assert tasks[-1] == ends[part]
    events.clear()
    with plugged(*sticks):
        write_sticks(opened(built), [sticks[0].root], WriteChoice(wanted=set()), events.append)
    assert {(event.part, event.is_end) for event in events} == {("", False)}


@pytest.mark.ci
def test_what_others_read_from_a_device_does_not_prove_a_stick_in_memory(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two disks and a folder in memory are read back at the same time: the counter is each thread's own."""
    monkeypatch.undo()
    meeting, met = threading.Barrier(3, timeout=WAIT_S), Counter[Path]()

    def sync(folder: Path) -> None:
        make_durable(folder)
        met[folder] += 1
        # Before the first blob is named, and before all is read back: all three are at the same place.
        meeting.wait()

    places = [tmp_path / name for name in "ab"]
    for place in places:
        place.mkdir()
    monkeypatch.setattr("bundles.stick.writing.blob_batches.make_durable", sync)
    with (
        mounted_disk(places[0]) as one,
        mounted_disk(places[1]) as two,
        TemporaryDirectory(dir="/dev/shm") as memory,
    ):
        paths = [one, two, Path(memory)]
        source = opened(built)
        rooms = {path: third(built) for path in paths[:2]}
        monkeypatch.setattr("bundles.medium.Medium.free_bytes", lambda medium: (rooms.get(medium.root, 1 << 40), 1))
        written = write_sticks(source, paths, WriteChoice(keep_mounted=True))
        assert [one.is_proven for one in written.sticks] == [True, True, False]
    assert set(met) == set(paths)
