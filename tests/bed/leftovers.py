"""What a bed left behind on this machine: looked for by tests after each kind of end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.bed.cache import bed_folder
from tests.bed.cell import processes_in

GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
NAMED = Path("/run/netns")


def leftovers(namespaces: frozenset[str], maker: int, temporary: Path, age_s: float = 0) -> list[str]:
    """What is still there of beds that ended.

    Args:
        namespaces: where their processes lived.
        maker: the process that made them; it is in the names of their control groups.
        temporary: the folder that they had for temporary files.
        age_s: how long ago they ended.
    """
    # The kernel may have given the namespaces' names to others meanwhile: those were started later.
    found = [f"process {pid} {_command(pid)}" for pid in processes_in(namespaces) if _age_s(pid) > age_s]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(bed_folder()) in line or " nsfs " in line]
    found += [f"file {path}" for path in (*(bed_folder() / "mounts").iterdir(), *temporary.iterdir())]
    found += [f"control group {path}" for folder in GROUPS for path in folder.glob(f"bed-{maker}-*")]
    found += [f"named namespace {path}" for path in (NAMED.iterdir() if NAMED.exists() else ())]
    return found


def await_none(namespaces: frozenset[str], maker: int, temporary: Path, timeout_s: float = 10) -> list[str]:
    """What is still there after the kernel had time to take it away."""
    start = time.monotonic()
    while found := leftovers(namespaces, maker, temporary, time.monotonic() - start):
        if time.monotonic() > start + timeout_s:
            break
        time.sleep(0.05)
    return found


def open_descriptors() -> int:
    """How many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


def _age_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "(gone)"
