"""Nothing of a guest outlives its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.bed.fixtures import require
from tests.bed.guest import Guest
from tests.bed.guest_abilities import no_guests
from tests.bed.guest_bed import fresh_guest

pytestmark = pytest.mark.vm

_HOLD = """
import time
from tests.bed.guest_bed import fresh_guest
guest = fresh_guest()
print(guest.process.pid, guest.name, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _ability() -> None:
    require(no_guests())


def _folder(guest: Guest) -> Path:
    return Path(tempfile.gettempdir()) / guest.name


def _has_ended(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # whoever adopted it has not asked yet
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_closed_guest_leaves_no_process_and_no_disk() -> None:
    with fresh_guest() as guest:
        pid, folder = guest.process.pid, _folder(guest)
        assert folder.is_dir()
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()
    guest.close()


def test_guest_ends_with_the_test_that_was_killed_and_the_next_one_removes_its_disk() -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid, name = holder.stdout.readline().split()
        os.kill(holder.pid, signal.SIGKILL)
    assert _has_ended(int(pid))
    with fresh_guest():
        assert not (Path(tempfile.gettempdir()) / name).exists()
