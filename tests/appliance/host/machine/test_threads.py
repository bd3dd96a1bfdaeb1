"""An engine gets no more threads than this process has cores and processor time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.host.machine import cgroups
from appliance.host.machine.threads import thread_count


def machine(folder: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write a /proc and a /sys/fs/cgroup as a machine would show them."""
    for path, text in {"proc/self/cgroup": groups, **{f"sys/{path}": text for path, text in files.items()}}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder / "proc", folder / "sys"


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 2), (4, 3), (64, 63)])
def test_one_core_is_left_free_where_there_are_more_than_two(tmp_path: Path, cores: int, threads: int) -> None:
    assert thread_count(*machine(tmp_path, "", {}), cores=cores) == threads


@pytest.mark.parametrize(
    ("groups", "files", "threads"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 15),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "200000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 2),
        ("4:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 15),
        ("0::/a\n", {"a/cpu.max": "\n", "cpu.max": "nonsense"}, 15),
        ("0::/a\n", {"a/cpu.max": "100000 0\n"}, 15),
    ],
)
def test_a_quota_of_any_group_above_counts(tmp_path: Path, groups: str, files: dict[str, str], threads: int) -> None:
    assert thread_count(*machine(tmp_path, groups, files), cores=16) == threads


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("0::/a\n", {"a/memory.max": "1000\n", "a/memory.current": "400\n"}, 600),
        ("0::/a\n", {"a/memory.max": "max\n", "a/memory.current": "400\n"}, None),
        (
            "0::/a/b\n",
            {
                "a/b/memory.max": "1000",
                "a/b/memory.current": "1",
                "a/memory.max": "1200",
                "a/memory.current": "1100",
            },
            100,
        ),
        ("2:memory:/x\n", {"memory/x/memory.limit_in_bytes": "500", "memory/x/memory.usage_in_bytes": "200"}, 300),
        ("2:memory:/x\n", {"memory/x/memory.limit_in_bytes": str((1 << 63) - 4096)}, None),
        ("", {}, None),
        ("nonsense\n1\n0::/a\n", {"a/memory.max": "1000", "a/memory.current": "400"}, 600),
        ("0::/a\n", {"a/memory.max": "", "a/memory.current": "400"}, None),
        # A limit that was lowered below the usage leaves 0 bytes, no negative number.
        ("0::/a\n", {"a/memory.max": "300", "a/memory.current": "400"}, 0),
        # Cached pages of files that were read are reclaimed when a process needs the memory.
        (
            "0::/a\n",
            {"a/memory.max": "1000", "a/memory.current": "900", "a/memory.stat": "anon 100\ninactive_file 700\n"},
            800,
        ),
        (
            "2:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": "500",
                "memory/x/memory.usage_in_bytes": "200",
                "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 150\n",
            },
            450,
        ),
        # So are those of a file that was read twice, but not those that a process has mapped.
        (
            "0::/a\n",
            {
                "a/memory.max": "1000",
                "a/memory.current": "900",
                "a/memory.stat": "inactive_file 100\nactive_file 600\nfile_mapped 200\n",
            },
            600,
        ),
        (
            "2:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": "500",
                "memory/x/memory.usage_in_bytes": "400",
                "memory/x/memory.stat": "total_inactive_file 50\ntotal_active_file 100\ntotal_mapped_file 300\n",
            },
            150,
        ),
    ],
)
def test_the_group_that_leaves_least_memory_counts(
    tmp_path: Path, groups: str, files: dict[str, str], left: int | None
) -> None:
    assert cgroups.memory_left_bytes(*machine(tmp_path, groups, files)) == left


def test_this_machine_has_at_least_one_thread() -> None:
    assert thread_count() >= 1


def test_processors_that_this_process_may_not_use_do_not_count() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert thread_count() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("cores", "quota", "threads"), [(2, 64, 2), (64, 2, 2), (64, 3, 2), (64, 0.2, 1), (3, 2.9, 2)])
def test_the_smaller_of_affinity_and_quota_counts(tmp_path: Path, cores: int, quota: float, threads: int) -> None:
    files = {"job/cpu.max": f"{int(quota * 100000)} 100000\n"}
    assert thread_count(*machine(tmp_path, "0::/job\n", files), cores=cores) == threads
