"""The guest's kernel and disk: seals that hold, and a power cut that loses what was not written."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from bundles.fsverity_digest import digest_of
from tests.bed.guest import Guest
from tests.bed.host import BedError

pytestmark = pytest.mark.vm

_WRITE = """
import os
def write(path, is_durable):
    with open(path, "wb") as file:
        file.write(b"x" * 3_000_000)
        file.flush()
        if is_durable:
            os.fsync(file.fileno())
write("/root/durable", True)
folder = os.open("/root", os.O_RDONLY)
os.fsync(folder)
write("/root/hasty", False)
"""

_SEAL = """
import fcntl, mmap, os
fd = os.memfd_create("model", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
os.write(fd, b"weights" * 10_000)
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
with mmap.mmap(reader, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
    assert view[:7] == b"weights"
for attempt in (
    lambda: os.pwrite(fd, b"X", 0), lambda: os.ftruncate(fd, 0),
    lambda: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    lambda: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"X", 0),
):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit("a sealed memory file was changed")
"""


def test_sealed_file_measures_as_computed_here_and_not_even_root_can_append_to_it(guest: Guest, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "model").write_bytes(data)
    guest.put(tmp_path / "model", "/root/model")
    guest.run(["fsverity", "enable", "/root/model"])
    measured = guest.run(["fsverity", "measure", "/root/model"]).out.split()[0]
    assert measured == f"sha256:{digest_of(io.BytesIO(data), len(data))}"
    refused = guest.run(["bash", "-c", "echo more >> /root/model"], check=False)
    assert "Operation not permitted" in refused.err


def test_memory_file_that_was_sealed_can_be_mapped_and_not_changed(guest: Guest) -> None:
    guest.run(["python3", "-I", "-c", _SEAL])


def test_power_cut_keeps_what_was_synced_and_loses_the_rest(guest: Guest) -> None:
    guest.run(["python3", "-I", "-c", _WRITE])
    guest.kill()
    with pytest.raises(BedError):
        guest.run(["true"])
    guest.boot()
    sizes = guest.run(["bash", "-c", "cat /root/durable | wc -c; cat /root/hasty 2>/dev/null | wc -c"]).out.split()
    assert sizes[0] == "3000000"
    # The control of the bed: had the page cache survived, this file would be whole.
    assert int(sizes[1]) < 3_000_000
    said = guest.run(["dmesg", "--level=err,crit,alert,emerg"]).out.splitlines()
    # Of the emulated timer, where the machine that emulates it is busy during the boot.
    assert [line for line in said if "MP-BIOS bug: 8254 timer" not in line] == []


def test_guest_that_was_switched_off_in_order_has_everything_when_it_boots_again(guest: Guest) -> None:
    guest.run(["python3", "-I", "-c", _WRITE])
    guest.stop()
    guest.boot()
    assert guest.run(["stat", "-c", "%s", "/root/hasty"]).out == "3000000\n"
