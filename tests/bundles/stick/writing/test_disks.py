"""Sticks share a disk by what the kernel shows: partitions of one disk, and volumes that lie on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.stick.mounts import Mount
from bundles.stick.writing.disks import disks_of, lanes_of


class Devices:
    """A tree as below /sys: disks with partitions, and volumes on others."""

    def __init__(self, folder: Path) -> None:
        self.block = folder / "dev/block"
        self.block.mkdir(parents=True)
        self._devices = folder / "devices"

    def disk(self, name: str, number: str, *slaves: str) -> Path:
        """A whole disk, or a volume on others."""
        return self._add(self._devices / name, number, slaves)

    def partition(self, disk: str, name: str, number: str) -> Path:
        """A partition of a disk."""
        node = self._add(self._devices / disk / name, number, ())
        (node / "partition").write_text("1\n")
        return node

    def _add(self, node: Path, number: str, slaves: tuple[str, ...]) -> Path:
        (node / "slaves").mkdir(parents=True)
        (self.block / number).symlink_to(node)
        for slave in slaves:
            (node / "slaves" / Path(slave).name).symlink_to(self._devices / slave)
        return node

    def of(self, number: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """The names of the disks below a folder that lies on a device."""
        with devices_at(monkeypatch, {folder: (number, "0:0")}):
            return {Path(name).name for name in disks_of(folder, self.block)}


@contextmanager
def devices_at(monkeypatch: pytest.MonkeyPatch, numbers: Mapping[Path, tuple[str, str]]) -> Iterator[None]:
    """Some paths lie on other devices than they do, and are other devices."""
    real = os.stat

    def stat(path: Any, **options: Any) -> Any:
        if (found := numbers.get(Path(path))) is None:
            return real(path, **options)
        own, special = (os.makedev(*map(int, number.split(":"))) for number in found)
        return SimpleNamespace(st_dev=own, st_rdev=special)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        yield


def test_partitions_and_volumes_lie_on_their_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(tmp_path)
    devices.disk("sda", "8:0")
    devices.partition("sda", "sda1", "8:1")
    devices.partition("sda", "sda2", "8:2")
    devices.disk("sdb", "8:16")
    devices.disk("dm-0", "253:0", "sda/sda2")
    devices.disk("md0", "9:0", "sdb", "dm-0")
    found = {number: devices.of(number, tmp_path, monkeypatch) for number in ("8:1", "8:2", "8:16", "253:0", "9:0")}
    assert found == {"8:1": {"sda"}, "8:2": {"sda"}, "8:16": {"sdb"}, "253:0": {"sda"}, "9:0": {"sda", "sdb"}}


def test_without_a_block_device_the_file_system_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(tmp_path)
    monkeypatch.setattr("bundles.stick.writing.disks.mount_of", lambda _: None)
    one, two = (devices.of(number, tmp_path, monkeypatch) for number in ("0:31", "0:32"))
    assert one != two
    assert devices.of("0:31", tmp_path, monkeypatch) == one


def test_what_btrfs_and_fuse_mounted_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(tmp_path)
    devices.disk("sdc", "8:32")
    devices.partition("sdc", "sdc1", "8:33")
    mount = Mount(1, "0:40", tmp_path, "btrfs", "/dev/sdc1", is_read_only=False)
    monkeypatch.setattr("bundles.stick.writing.disks.mount_of", lambda _: mount)
    with devices_at(monkeypatch, {tmp_path: ("0:40", "0:0"), Path("/dev/sdc1"): ("0:5", "8:33")}):
        found = disks_of(tmp_path, devices.block)
    assert {Path(name).name for name in found} == {"sdc"}


def test_a_stick_that_is_gone_has_a_lane_of_its_own(tmp_path: Path) -> None:
    assert disks_of(tmp_path / "gone") != disks_of(tmp_path / "gone, too")


@given(st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1, max_size=2), max_size=12))
def test_different_lanes_share_no_disk_and_each_keeps_its_order(disks: list[frozenset[str]]) -> None:
    lanes = lanes_of(range(len(disks)), disks)
    assert sorted(one for lane in lanes for one in lane) == list(range(len(disks)))
    assert all(lane == sorted(lane) for lane in lanes)
    used = [frozenset[str]().union(*(disks[one] for one in lane)) for lane in lanes]
    assert all(not one & other for at, one in enumerate(used) for other in used[:at])
    # Nothing waits without a reason: a lane cannot be cut in two that share no disk.
    for lane in lanes:
        near = {lane[0]}
        while more := {one for one in lane if one not in near and any(disks[one] & disks[other] for other in near)}:
            near |= more
        assert near == set(lane)
