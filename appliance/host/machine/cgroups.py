"""The limits of the control groups around this process: processor time and memory.

Owns how `/proc/self/cgroup` and `/sys/fs/cgroup` are read, in version 1 and 2. A limit of any group above
counts; a file that is missing, or holds nothing that is known, is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
SYSFS = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60


def cpu_quota(proc: Path = PROC, sysfs: Path = SYSFS) -> float | None:
    """Read how much processor time this process may use, in processors; None without a limit."""
    v2 = [_read(folder, "cpu.max").partition(" ")[::2] for folder in _folders(proc, sysfs, "")]
    v1 = [
        (_read(folder, "cpu.cfs_quota_us"), _read(folder, "cpu.cfs_period_us"))
        for folder in _folders(proc, sysfs, "cpu")
    ]
    limits = [_share(quota, period) for quota, period in (*v2, *v1)]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_left_bytes(proc: Path = PROC, sysfs: Path = SYSFS) -> int | None:
    """Read how many bytes this process and its group may still use; None without a limit.

    Cached pages of files that no process has mapped count as free: the kernel reclaims them first.
    """
    v2, v1 = _folders(proc, sysfs, ""), _folders(proc, sysfs, "memory")
    cached = ("inactive_file", "active_file", "file_mapped")
    left = [_left(folder, "memory.max", "memory.current", cached) for folder in v2]
    cached = ("total_inactive_file", "total_active_file", "total_mapped_file")
    left += [_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", cached) for folder in v1]
    return min((size for size in left if size is not None), default=None)


def _share(quota: str, period: str) -> float | None:
    # Without a limit version 2 shows `max`, and version 1 shows -1.
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _left(folder: Path, limit: str, usage: str, cached: tuple[str, str, str]) -> int | None:
    most, used = _read(folder, limit), _read(folder, usage)
    if not (most.isdecimal() and used.isdecimal()) or int(most) >= _UNLIMITED_BYTES:
        return None
    fields = dict(line.partition(" ")[::2] for line in _read(folder, "memory.stat").splitlines())
    inactive, active, mapped = (int(text) if (text := fields.get(name, "")).isdecimal() else 0 for name in cached)
    # A file that was read twice, as an import does, is active. Mapped pages may be those of an engine.
    unused = max(inactive, inactive + active - mapped)
    return max(0, int(most) - int(used) + min(unused, int(used)))


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _folders(proc: Path, sysfs: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and of each group above it; `controller` is empty for version 2."""
    for group in _groups(proc, controller):
        folder = sysfs / controller / group.strip("/")
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(sysfs / controller))


def _groups(proc: Path, controller: str) -> Iterator[str]:
    for line in _read(proc / "self", "cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, colon, group = rest.partition(":")
        if colon and controller in names.split(","):
            yield group
