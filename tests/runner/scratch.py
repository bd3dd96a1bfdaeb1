"""Where tests write: a pytest plugin.

Rules:

- The default tier writes into memory, where /dev/shm has room, is writable and may run programs. A whole run writes
  70 000 small files and needs 1 GB.
- TIER=ci writes to the disk, as the program's users do.
- A place that the caller chose stays: --basetemp, TMPDIR, PYTEST_DEBUG_TEMPROOT.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.host.models.served_file import memory_available_bytes

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 4_000_000_000
CHOSEN = ("PYTEST_DEBUG_TEMPROOT", "TMPDIR")


def has_room(folder: Path) -> bool:
    """Whether a folder in memory can hold what a run of the tests writes and executes."""
    try:
        room, available_bytes = os.statvfs(folder), memory_available_bytes()
    except OSError:
        return False
    if room.f_flag & (os.ST_NOEXEC | os.ST_RDONLY) or not os.access(folder, os.W_OK):
        return False
    return min(room.f_bavail * room.f_frsize, available_bytes) >= NEEDED_BYTES


def pytest_configure(config: pytest.Config) -> None:
    """Choose the place, before the first temporary folder is made."""
    is_default = "not ci" in config.option.markexpr
    is_chosen = config.option.basetemp or any(os.environ.get(name) for name in CHOSEN)
    if is_default and not is_chosen and has_room(MEMORY):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)
