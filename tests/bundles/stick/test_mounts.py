"""What the kernel states about mounts is read as it is, and a mount ends a wait at once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundles.stick import mounts
from bundles.stick.mounts import Mount, MountWatch, mount_of, read_mounts

MOUNTINFO = """\
22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
90 27 8:17 / /media/a\\040stick rw,nosuid shared:9 - vfat /dev/sdb1 rw,fmask=0022
91 27 8:33 /part /media/dvd ro,nosuid master:1 propagate_from:2 - udf /dev/sr0 ro
92 27 8:49 / /media/locked rw - exfat /dev/sdd ro
93 27 0:44 / /media/net rw - nfs4 server:/x rw
a line of no mount
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    return path


def test_lines_are_read_with_their_escapes(mountinfo: Path) -> None:
    found = {mount.number: mount for mount in read_mounts(mountinfo)}
    assert found[90] == Mount(90, "8:17", Path("/media/a stick"), "vfat", "/dev/sdb1", is_read_only=False)
    assert found[91].is_read_only
    assert found[92].is_read_only  # by the file system alone
    assert set(found) == {22, 27, 90, 91, 92, 93}


def test_kernel_without_the_file_has_no_mounts(tmp_path: Path) -> None:
    assert read_mounts(tmp_path / "none") == ()
    watch = MountWatch(tmp_path / "none")
    assert not watch.wait(0.001)
    assert watch.arrived() == ()
    watch.close()


def test_path_lies_on_the_innermost_and_last_mount(mountinfo: Path) -> None:
    mountinfo.write_text(MOUNTINFO + "94 90 8:65 / /media/a\\040stick rw - vfat /dev/sde1 rw\n")
    found = mount_of(Path("/media/a stick/blobs/sha256"), read_mounts(mountinfo))
    assert found is not None
    assert found.number == 94
    other = mount_of(Path("/media/else"), read_mounts(mountinfo))
    assert other is not None
    assert other.number == 27


def test_only_file_systems_of_media_that_came_since_are_looked_at(mountinfo: Path) -> None:
    watch = MountWatch(mountinfo)
    assert watch.arrived() == ()
    with mountinfo.open("a") as file:
        file.write("95 27 8:81 / /media/new rw - exfat /dev/sdf1 rw\n96 27 0:50 / /mnt/share rw - nfs4 server:/y rw\n")
    assert watch.arrived() == (Path("/media/new"),)
    watch.close()


def test_stick_that_is_plugged_in_anew_has_come_though_the_kernel_gives_its_mount_the_same_number(
    mountinfo: Path,
) -> None:
    before = mountinfo.read_text()
    with_stick = before + "95 27 8:81 / /media/new rw - exfat /dev/sdf1 rw\n"
    mountinfo.write_text(with_stick)
    watch = MountWatch(mountinfo)
    arrived = []
    for text in (with_stick, before, with_stick):
        mountinfo.write_text(text)
        arrived.append(watch.arrived())
    watch.close()
    assert arrived == [(), (), (Path("/media/new"),)]


def test_device_that_the_kernel_lists_no_longer_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "BLOCK_DEVICES", tmp_path / "block")
    stick = Mount(90, "8:17", Path("/media/stick"), "vfat", "/dev/sdb1", is_read_only=False)
    seen = [stick.is_gone]  # where the kernel shows no devices, nobody can know it
    (tmp_path / "block" / "254:1").mkdir(parents=True)
    seen += [stick.is_gone, replace(stick, device="0:44").is_gone]  # the second has no device
    (tmp_path / "block" / "8:17").mkdir()
    assert [*seen, stick.is_gone] == [False, True, False, False]


WATCH = """
import subprocess, sys
from pathlib import Path
from bundles.stick.mounts import MountWatch
point = Path(sys.argv[1])
watch = MountWatch()
assert not watch.wait(0.05), "an event before anything happened"
subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
assert watch.wait(30), "a mount is an event"
assert watch.arrived() == (point,)
assert not watch.wait(0.05), "one event is reported once"
subprocess.run(["umount", point], check=True)
assert watch.wait(30), "an unmount is an event"
"""


def test_mount_and_unmount_end_a_wait_once_each(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount in a user namespace")
    argv = ["unshare", "-rm", sys.executable, "-c", WATCH, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr


def test_wait_asks_the_kernel_once_and_sleeps_there_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    class Poll:
        def register(self, _descriptor: int, _events: int) -> None:
            pass

        def unregister(self, _descriptor: int) -> None:
            pass

        def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
            asked.append(timeout_ms)
            return []

    monkeypatch.setattr("bundles.stick.mounts.select.poll", Poll)
    watch = MountWatch()
    assert not watch.wait()
    assert asked == [1000]
    watch.close()
