"""Sticks are real to the guest: file systems, write protection, and being pulled out at any moment."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from tests.bed.guest import Guest
from tests.bed.guest_bed import fresh_guest
from tests.bed.host import CommandError
from tests.bed.usb import UsbStick, make_exfat, make_stick

pytestmark = pytest.mark.vm
PAYLOAD_BYTES = 24 << 20
SLOW_BYTES_PER_S = 6 << 20


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    folder = tmp_path / "contents"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "payload").write_bytes(os.urandom(PAYLOAD_BYTES))
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def _digest_in(guest: Guest, path: str) -> str:
    return guest.run(["sha256sum", path]).out.split()[0]


def _digest_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_fat32_stick_holds_what_was_put_on_it_and_nothing_on_it_runs(
    guest: Guest, contents: Path, tmp_path: Path
) -> None:
    folder = guest.plug(make_stick("stick-1", tmp_path / "stick.img", contents))
    assert _digest_in(guest, f"{folder}/blobs/payload") == _digest_of(contents / "blobs" / "payload")
    mounted = guest.run(["findmnt", "-no", "FSTYPE,OPTIONS", folder]).out
    assert mounted.startswith("vfat")
    assert all(option in mounted for option in ("nosuid", "nodev", "noexec"))
    assert guest.run([f"{folder}/run.sh"], check=False).code != 0


def test_stick_yanked_in_the_middle_of_a_copy_is_an_input_output_error_and_the_copy_goes_on_after_replugging(
    guest: Guest, contents: Path, tmp_path: Path
) -> None:
    stick = make_stick("stick-1", tmp_path / "stick.img", contents, bytes_per_s=SLOW_BYTES_PER_S)
    source, copy = f"{guest.plug(stick)}/blobs/payload", "/var/tmp/payload"
    guest.run(["systemd-run", "--quiet", "--unit=copy", "--property=RemainAfterExit=yes", "cp", source, copy])
    guest.run(["bash", "-c", f"until [ -s {copy} ]; do sleep 0.1; done"], timeout_s=120)
    guest.yank()
    guest.run(["bash", "-c", "while systemctl is-active --quiet copy; do sleep 0.1; done"], timeout_s=120)
    assert "Input/output error" in guest.run(["journalctl", "-b", "-o", "cat", "-u", "copy"]).out
    copied = int(guest.run(["stat", "-c", "%s", copy]).out)
    assert 0 < copied < PAYLOAD_BYTES
    guest.plug(stick)
    guest.run(["bash", "-c", f"tail -c +{copied + 1} {source} >> {copy}"])
    assert _digest_in(guest, copy) == _digest_of(contents / "blobs" / "payload")


def test_write_protected_stick_refuses_writes_and_keeps_every_bit(guest: Guest, contents: Path, tmp_path: Path) -> None:
    stick = make_stick("stick-1", tmp_path / "stick.img", contents, is_read_only=True)
    before = _digest_of(stick.image)
    folder = guest.plug(stick)
    assert "Read-only file system" in guest.run(["touch", f"{folder}/new"], check=False).err
    with pytest.raises(CommandError):
        guest.run(["mount", "-o", "remount,rw", folder])
    device = guest.run(["findmnt", "-no", "SOURCE", folder]).out.strip()
    with pytest.raises(CommandError):
        guest.run(["dd", "if=/dev/zero", f"of={device}", "bs=512", "count=1", "oflag=direct"])
    guest.yank()
    assert _digest_of(stick.image) == before


def test_exfat_stick_takes_files_from_one_guest_to_another(guest: Guest, tmp_path: Path) -> None:
    image = tmp_path / "stick.img"
    make_exfat(image, 128 << 20)
    stick = UsbStick("stick-1", image, tmp_path, filesystem="exfat")
    folder = guest.plug(stick)
    assert guest.run(["findmnt", "-no", "FSTYPE", folder]).out.strip() == "exfat"
    guest.run(["bash", "-c", f"head -c 1000000 /dev/urandom > {folder}/letter; sha256sum < {folder}/letter"])
    sent = _digest_in(guest, f"{folder}/letter")
    guest.run(["umount", folder])
    guest.yank()
    with fresh_guest() as other:
        assert _digest_in(other, f"{other.plug(stick)}/letter") == sent


class _Folder:
    """A stick as scenarios for every kind of host have it."""

    name, is_read_only = "stick-1", False

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def test_what_the_guest_wrote_to_a_folders_stick_is_in_the_folder_afterwards(
    guest: Guest, contents: Path, tmp_path: Path
) -> None:
    mounted = guest.plug(_Folder(contents))
    guest.run(["bash", "-c", f"echo receipt > {mounted}/receipt && umount {mounted}"])
    guest.yank()
    assert (contents / "receipt").read_text() == "receipt\n"
