"""What the control groups around this process allow it: processor time and memory.

Owns how `/proc/self/cgroup` and `/sys/fs/cgroup` are read, in version 1 and 2. A limit of any group above
counts; a file that is not there is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
SYSFS = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60


def cpu_quota(proc: Path = PROC, sysfs: Path = SYSFS) -> float | None:
    """How many processors' worth of time this process may use; None without a limit."""
    limits = [float(_share(*text.split())) for text in _read(proc, sysfs, "", "cpu.max") if text.split()[0] != "max"]
    v1 = zip(
        _read(proc, sysfs, "cpu", "cpu.cfs_quota_us"), _read(proc, sysfs, "cpu", "cpu.cfs_period_us"), strict=False
    )
    limits += [_share(quota, period) for quota, period in v1 if int(quota) > 0]
    return min(limits, default=None)


def memory_left_bytes(proc: Path = PROC, sysfs: Path = SYSFS) -> int | None:
    """How many bytes this process and its group may still use; None without a limit."""
    v2 = zip(_read(proc, sysfs, "", "memory.max"), _read(proc, sysfs, "", "memory.current"), strict=False)
    v1 = zip(
        _read(proc, sysfs, "memory", "memory.limit_in_bytes"),
        _read(proc, sysfs, "memory", "memory.usage_in_bytes"),
        strict=False,
    )
    left = [int(most) - int(used) for most, used in (*v2, *v1) if most != "max" and int(most) < _UNLIMITED_BYTES]
    return min(left, default=None)


def _share(quota: str, period: str) -> float:
    return int(quota) / int(period)


def _read(proc: Path, sysfs: Path, controller: str, name: str) -> Iterator[str]:
    """The file of the own group and of each above it that has one; `controller` is empty for version 2."""
    for group in _groups(proc, controller):
        folder = sysfs / controller / group.strip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(sysfs / controller):
                break
            try:
                yield (place / name).read_text("ascii").strip()
            except (OSError, ValueError):
                continue


def _groups(proc: Path, controller: str) -> Iterator[str]:
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, group = line.split(":", 2)
        if controller in names.split(","):
            yield group
