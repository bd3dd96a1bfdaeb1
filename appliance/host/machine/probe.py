"""Reading a host: everything that its card holds, as an ordinary user sees it, without a network.

Owns the assembly of a `Card` from the files of the kernel and of the system. It must never change the host, and never
fail: what it cannot see, `unseen` names.

Rules:
- isolation and sealed memory are tried, in a child process or on a new piece of memory;
- a CPU variant is called tried only where a runtime ran a computation here; else the processor's flags decide;
- an install needs the system, the processor and the memory: `probe_essentials` reads those alone, and tries nothing;
- files are read below `root`, so that tests can show another machine.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from appliance.host.machine import cgroups
from appliance.host.machine.card import BY_FLAGS, FORMAT, Card, Clock, Cpu, Kernel, Memory, System, Variant
from appliance.host.machine.cpu import FLAGS, cpu_flags, fitting_variants
from appliance.host.machine.disks import read_disks
from appliance.host.machine.gpus import Run, read_gpus
from appliance.host.machine.libraries import read_libraries
from appliance.host.machine.proc_file import read_text
from appliance.host.machine.threads import thread_count
from appliance.host.process.child import NONE, spawn
from signing.errors import ApplianceError

SYSTEMCTL = "/usr/bin/systemctl"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SEAL_BYTES = 4096
_SYSTEMD = re.compile(r"libsystemd-shared-([0-9][0-9A-Za-z.~+-]*)\.so")
_SYSTEMD_FOLDERS = ("usr/lib/systemd", "lib/systemd", "usr/lib64/systemd", "usr/lib/*/systemd")


def probe(now: datetime, run: Run, variants: Sequence[Variant] = (), root: Path = Path("/")) -> Card:
    """Read this host's card.

    Args:
        now: its clock, UTC.
        run: starts tools that may be installed, such as `nvidia-smi`.
        variants: verdicts of a trial; without any, the processor's flags decide.
        root: `/`, or a folder in its place.
    """
    unseen: list[str] = []
    return Card(
        format=FORMAT,
        system=_read_system(run, root, unseen),
        cpu=_read_cpu(root, tuple(variants), unseen),
        memory=read_memory(root, unseen),
        gpus=read_gpus(root, run, unseen),
        disks=read_disks(root, unseen),
        kernel=_read_kernel(root, unseen),
        clock=Clock(now.strftime(_TIME), _is_synchronised(root)),
        unseen=tuple(unseen),
    )


def probe_essentials(now: datetime, run: Run, root: Path = Path("/")) -> Card:
    """Read the part of this host's card that an install decides by: system, processor and memory.

    The rest is empty. No child process, disk or graphics processor is tried. So it takes milliseconds, even where a
    mounted network disk does not answer.

    Args:
        now: its clock, UTC.
        run: starts `systemctl`, where no file shows the version of systemd.
        root: `/`, or a folder in its place.
    """
    unseen: list[str] = []
    return Card(
        format=FORMAT,
        system=_read_system(run, root, unseen),
        cpu=_read_cpu(root, (), unseen),
        memory=read_memory(root, unseen),
        gpus=(),
        disks=(),
        kernel=Kernel(NONE, False, None, None, None),
        clock=Clock(now.strftime(_TIME), None),
        unseen=(*unseen, "graphics processors, disks, kernel, time service: not read"),
    )


def variants_by_flags(flags: frozenset[str]) -> tuple[Variant, ...]:
    """Judge all known variants by the processor's flags, newest generation first."""
    fitting = fitting_variants(FLAGS, flags)
    missing = {name: sorted(set(needed) - flags) for name, needed in FLAGS.items()}
    return tuple(
        Variant(name, name in fitting, BY_FLAGS, f"lacks {' '.join(missing[name])}" if missing[name] else "")
        for name in reversed(FLAGS)
    )


def _read_system(run: Run, root: Path, unseen: list[str]) -> System:
    release, libraries = _os_release(root), read_libraries()
    return System(
        os=f"{release.get('ID') or 'unknown'}-{release.get('VERSION_ID') or 'unknown'}",
        name=release.get("PRETTY_NAME", ""),
        arch=platform.machine(),
        kernel=read_text(root / "proc/sys/kernel/osrelease") or platform.release(),
        systemd=_systemd_version(run, root, unseen),
        glibc=libraries.glibc,
        glibcxx=libraries.glibcxx,
        cxxabi=libraries.cxxabi,
    )


def _os_release(root: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in read_text(root / "etc/os-release").splitlines())
    return {name: value.strip().strip("\"'") for name, _, value in pairs}


def _systemd_version(run: Run, root: Path, unseen: list[str]) -> str:
    """The version of the systemd that runs the machine; empty where none does."""
    folders = [folder for pattern in _SYSTEMD_FOLDERS for folder in sorted(root.glob(pattern))]
    names = [path.name for folder in folders for path in _entries(folder)]
    versions = [match.group(1) for name in names if (match := _SYSTEMD.fullmatch(name))]
    if (root / "run/systemd/system").is_dir():
        words = [] if versions else run((SYSTEMCTL, "--version")).split()
        return (versions or words[1:2] or ["unknown"])[0]
    if versions:
        unseen.append(f"systemd {versions[0]} is installed but does not run this machine")
    return ""


def _read_cpu(root: Path, tried: tuple[Variant, ...], unseen: list[str]) -> Cpu:
    info = root / "proc/cpuinfo"
    flags = cpu_flags(info)
    if not flags:
        unseen.append("processor flags: /proc/cpuinfo shows none")
    model = re.search(r"^model name\s*: (.*)", read_text(info), re.MULTILINE)
    quota = cgroups.cpu_quota(root / "proc", root / "sys/fs/cgroup")
    is_x86 = platform.machine() == "x86_64"
    return Cpu(
        model=model.group(1) if model else "",
        flags=tuple(sorted(flags)),
        cores=os.cpu_count() or 1,
        allowed_cores=len(os.sched_getaffinity(0)),
        quota_millicores=None if quota is None else int(quota * 1000),
        engine_threads=thread_count(root / "proc", root / "sys/fs/cgroup"),
        variants=tried or (variants_by_flags(flags) if is_x86 else ()),
    )


def read_memory(root: Path = Path("/"), unseen: list[str] | None = None) -> Memory:
    """Read how much memory this machine has, and how much its control groups leave.

    Args:
        root: of the machine.
        unseen: gets what could not be read, for people.
    """
    sizes = dict(re.findall(r"^(\w+):\s+([0-9]+) kB", read_text(root / "proc/meminfo"), re.MULTILINE))
    if not sizes and unseen is not None:
        unseen.append("memory: /proc/meminfo shows nothing")
    return Memory(
        ram_bytes=int(sizes.get("MemTotal", 0)) << 10,
        available_bytes=int(sizes.get("MemAvailable", 0)) << 10,
        swap_bytes=int(sizes.get("SwapTotal", 0)) << 10,
        limit_bytes=cgroups.memory_left_bytes(root / "proc", root / "sys/fs/cgroup"),
    )


def _read_kernel(root: Path, unseen: list[str]) -> Kernel:
    groups = root / "sys/fs/cgroup"
    version = 2 if (groups / "cgroup.controllers").exists() else 1 if (groups / "memory").is_dir() else None
    verity = [path for path in _entries(root / "sys/fs") if (path / "features/verity").exists()]
    if version is None:
        unseen.append("control groups: none are mounted at /sys/fs/cgroup")
    has_sysfs = (root / "sys/fs").is_dir()
    return Kernel(
        isolation=_isolation(unseen),
        has_memfd_seals=_can_seal_memory(),
        cgroup_version=version,
        has_fsverity=bool(verity) if has_sysfs else None,
        has_device_mapper=_has_misc_device(root, "device-mapper"),
    )


def _isolation(unseen: list[str]) -> str:
    try:
        child = spawn(["/bin/true"], cwd=Path("/"), env={})
    except ApplianceError as error:
        unseen.append(f"isolation: {error.found}")
        return NONE
    child.stop()
    return child.isolation


def _can_seal_memory() -> bool:
    try:
        memory = os.memfd_create("probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return False
    try:
        os.ftruncate(memory, _SEAL_BYTES)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        os.pwrite(memory, b"x", 0)
    except PermissionError:
        return True
    except OSError:
        return False
    finally:
        os.close(memory)
    return False


def _has_misc_device(root: Path, name: str) -> bool | None:
    text = read_text(root / "proc/misc")
    return any(line.split()[-1:] == [name] for line in text.splitlines()) if text else None


def _is_synchronised(root: Path) -> bool | None:
    if not (root / "run/systemd").is_dir():
        return None
    return (root / "run/systemd/timesync/synchronized").exists() or None


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []
