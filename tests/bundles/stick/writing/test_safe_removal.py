"""A stick is called safe to pull only where the kernel does not list it as mounted for writing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundles.stick.mounts import Mount, mount_of
from bundles.stick.writing import safe_removal
from bundles.stick.writing.safe_removal import Removal, dirty_mark, make_removable, read_dirty_mark
from tests.bundles.stick.disks import mounted_disk


def test_a_disk_is_unmounted(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        (disk / "file").write_bytes(b"written")
        assert make_removable(disk) == Removal("unmounted")
        assert not os.path.ismount(disk)


def test_a_disk_on_which_something_is_open_is_mounted_read_only(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        (disk / "file").write_bytes(b"written")
        with (disk / "file").open("rb"):
            assert make_removable(disk) == Removal("read-only")
            mount = mount_of(disk)
            assert mount is not None
            assert mount.is_read_only
            with pytest.raises(OSError, match="Read-only"):
                (disk / "other").write_bytes(b"x")


def test_a_disk_on_which_something_is_written_stays_and_the_command_is_named(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk, (disk / "file").open("wb"):
        assert make_removable(disk) == Removal("mounted", f"sudo umount {disk}")
        assert not make_removable(disk).is_safe
        assert os.path.ismount(disk)


def test_a_disk_that_is_mounted_elsewhere_too_is_not_safe_and_the_machine_stays_writable(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        subprocess.run(("mount", "--bind", disk, elsewhere), check=True)
        try:
            assert make_removable(disk) == Removal("mounted", f"sudo umount {elsewhere}")
        finally:
            subprocess.run(("umount", elsewhere), check=True)
        (disk / "on the machine").write_bytes(b"x")


def test_on_request_a_disk_stays_mounted(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        assert make_removable(disk, keep_mounted=True) == Removal("mounted", f"sudo umount {disk}")
        assert os.path.ismount(disk)


def test_an_ordinary_user_gets_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted_disk(tmp_path) as disk:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert make_removable(disk).command == f"sudo umount {disk}"
        assert os.path.ismount(disk)


def test_a_folder_below_a_mount_point_is_never_unmounted(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        (disk / "folder").mkdir()
        assert make_removable(disk / "folder") == Removal("no mount point")
        assert os.path.ismount(disk)


def test_a_file_system_in_memory_is_never_unmounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount = Mount(1, "0:23", tmp_path, "tmpfs", "tmpfs", False)
    monkeypatch.setattr(safe_removal, "mount_of", lambda _: mount)
    monkeypatch.setattr(safe_removal, "_unmount", None)
    assert make_removable(tmp_path) == Removal("no mount point")


def test_a_path_with_spaces_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point = tmp_path / "my stick"
    mount = Mount(1, "8:17", point, "vfat", "/dev/sdb1", False)
    monkeypatch.setattr(safe_removal, "mount_of", lambda _: mount)
    monkeypatch.setattr(safe_removal, "read_mounts", lambda: (mount,))
    assert make_removable(point, keep_mounted=True).command == f"sudo umount '{point}'"


def sector(system: str, is_dirty: bool) -> bytes:
    """The first sector of an empty file system."""
    data = bytearray(512)
    if system == "fat16":
        data[22:24] = b"\x20\0"
    data[{"fat16": 37, "fat32": 65, "exfat": 106}[system]] = {"exfat": 2}.get(system, 1) if is_dirty else 0
    return bytes(data)


@pytest.mark.parametrize("is_dirty", [True, False])
@pytest.mark.parametrize(("system", "type_"), [("fat16", "vfat"), ("fat32", "vfat"), ("exfat", "exfat")])
def test_the_mark_of_an_earlier_pull_is_read(system: str, type_: str, is_dirty: bool) -> None:
    assert dirty_mark(sector(system, is_dirty), type_) is is_dirty
    assert dirty_mark(sector(system, is_dirty), "ext4") is None


def test_the_mark_is_reported_with_the_command_that_mends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(sector("fat32", True))
    mount = Mount(1, "8:17", tmp_path, "vfat", str(device), False)
    monkeypatch.setattr(safe_removal, "mount_of", lambda _: mount)
    monkeypatch.setattr(safe_removal, "read_mounts", lambda: ())
    monkeypatch.setattr(safe_removal, "_unmount", lambda _: None)
    monkeypatch.setattr(safe_removal, "_make_read_only", lambda _: None)
    assert make_removable(tmp_path) == Removal("unmounted", "", True, f"sudo fsck.vfat -a {device}")


@pytest.mark.parametrize("data", [None, b"", b"short"])
def test_a_device_that_cannot_be_read_gives_no_answer(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "device").write_bytes(data)
    assert read_dirty_mark(tmp_path / "device", "vfat") is None


@pytest.mark.parametrize("system", ["vfat", "exfat"])
def test_a_new_file_system_has_no_mark(tmp_path: Path, system: str) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    try:
        subprocess.run((f"mkfs.{system}", image), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("this machine lets nobody mount a small disk")
    assert read_dirty_mark(image, system) is False
