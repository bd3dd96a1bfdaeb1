"""Room by file system, a small folder for temporary files, and file systems that cannot be written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Disk
from appliance.host.preflight.finding import Level
from appliance.host.preflight.room_findings import (
    TEMPORARY_BYTES,
    RoomNeed,
    card_rooms,
    folder_findings,
    missing_files,
    room_findings,
    temporary_finding,
)
from tests.appliance.sim_host import SimHost, new_host


@dataclass
class SimFileSystem:
    """What `statvfs` answers; also the files of a file system that is full or read-only."""

    f_bavail: int = 1 << 20
    f_frsize: int = 4096
    f_files: int = 1 << 20
    f_favail: int = 1 << 20
    f_flag: int = 0


def test_room_and_inodes_are_judged_for_each_file_system() -> None:
    enough, small = RoomNeed(Path("/a"), 10, 2, 10, 2), RoomNeed(Path("/b"), 11, 3, 10, 2)
    found = room_findings([enough, small, RoomNeed(Path("/c"), 1, 9, 1, None)])
    assert [one.subject for one in found if one.is_problem] == ["disk at /b", "inodes at /b"]
    assert [(one.required, one.measured) for one in found if one.is_problem] == [
        ("11 bytes free", "10 bytes"),
        ("3 free", "2"),
    ]
    assert (enough.is_enough, small.is_enough) == (True, False)


@pytest.mark.parametrize(("free", "level"), [(64 << 20, Level.OK), (TEMPORARY_BYTES - 4096, Level.PROBLEM)])
def test_tmp_of_64_mb_suffices_and_a_full_one_is_named(
    free: int, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimFileSystem(f_bavail=free // 4096))
    found = temporary_finding()
    assert found.level is level
    assert ("TMPDIR=" in found.remedy) == (level is Level.PROBLEM)


def test_folder_that_is_mounted_read_only_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, real = Prefix(tmp_path / "host"), os.statvfs
    prefix.opt.mkdir(parents=True)
    prefix.state.mkdir(parents=True)

    def statvfs(path: Path) -> object:
        return SimFileSystem(f_flag=os.ST_RDONLY) if Path(path) == prefix.opt else real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    problems = [one for one in folder_findings(prefix) if one.is_problem]
    assert [one.subject for one in problems] == [f"folder {prefix.opt}"]
    assert problems[0].measured == "mounted read-only"
    assert problems[0].remedy.startswith(f"mount -o remount,rw {prefix.opt}")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    return new_host(tmp_path_factory.mktemp("rooms"))


def test_room_of_another_machine_is_counted_at_its_nearest_mount(sim: SimHost) -> None:
    contents = sim.verify().value.contents
    disks = [Disk(mount, "ext4", 1 << 40, free, False, None) for mount, free in (("/", 5), ("/var", 1 << 30))]
    rooms = {str(one.folder): one for one in card_rooms(contents, Prefix(Path("/")), disks)}
    models = sum(file.size for file in contents.of_kind("model"))
    assert rooms["/var"].size_bytes == models
    assert rooms["/"].size_bytes > sum(file.size for file in contents.files) - models
    assert (rooms["/"].is_enough, rooms["/var"].is_enough) == (False, True)
    assert card_rooms(contents, Prefix(Path("/")), []) == ()


def test_what_this_machine_holds_leaves_the_room_of_another_one_as_it_is(sim: SimHost, tmp_path: Path) -> None:
    contents, prefix = sim.verify().value.contents, Prefix(tmp_path)
    disks = [Disk("/", "ext4", 1 << 40, 1 << 30, False, None)]
    before = card_rooms(contents, prefix, disks)
    [model] = contents.of_kind("model")
    held = place(prefix, prefix.releases / "new", model)
    held.parent.mkdir(parents=True)
    held.write_bytes(bytes(model.size))
    assert card_rooms(contents, prefix, disks) == before
    assert model not in missing_files(contents, prefix, prefix.releases / "new")
