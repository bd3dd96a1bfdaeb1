"""A card of a host that does not exist, and a machine's /proc and /sys as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.host.machine.card import (
    BY_FLAGS,
    FORMAT,
    TRIED,
    Card,
    Clock,
    Cpu,
    Disk,
    Gpu,
    Kernel,
    Memory,
    System,
    Variant,
    card_schema,
)
from tests.json_schema import is_valid, require_valid

GIB = 1 << 30
CARD = Card(
    format=FORMAT,
    system=System("debian-12", "Debian GNU/Linux 12", "x86_64", "6.1.0", "252", "2.36", "3.4.30", "1.3.13"),
    cpu=Cpu(
        "Toy 3000",
        ("avx2", "sse4_2"),
        8,
        8,
        None,
        7,
        (Variant("haswell", False, BY_FLAGS, "lacks bmi2"), Variant("x64", True, TRIED, "")),
    ),
    memory=Memory(16 * GIB, 12 * GIB, 0, None),
    gpus=(Gpu("0000:01:00.0", "0x10de", "0x2330", "Toy GPU", 8 * GIB, "550.1"),),
    disks=(Disk("/", "ext4", 100 * GIB, 50 * GIB, False, True),),
    kernel=Kernel("netns", True, 2, True, None),
    clock=Clock("2026-01-02T03:04:05Z", None),
    unseen=("something",),
)

CPUINFO = """processor\t: 0
model name\t: Toy 3000 @ 2 GHz
flags\t\t: sse4_2 avx f16c fma avx2 bmi2
"""
MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\nSwapTotal:       1000000 kB\n"
NVIDIA = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\nGCC version: 12\n"


def check_card(value: dict[str, Any]) -> None:
    """Check a card against its own schema, and that against the schema of schemas."""
    require_valid(json.loads(json.dumps(value)), card_schema())


def is_card(value: dict[str, Any]) -> bool:
    """Whether the schema takes a value."""
    return is_valid(value, card_schema())


def write_machine(root: Path, files: dict[str, str] | None = None) -> Path:
    """A machine's files below a folder: a processor, memory, control groups of version 2, systemd, one disk."""
    usual = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (toy)"\n',
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": MEMINFO,
        "proc/misc": " 63 device-mapper\n227 fuse\n",
        "proc/sys/kernel/osrelease": "6.1.0-toy\n",
        "proc/self/mounts": "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw,relatime 0 0\ntmpfs /run tmpfs rw 0 0\n",
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "sys/fs/cgroup/job/memory.max": "8000000000\n",
        "sys/fs/cgroup/job/memory.current": "1000000000\n",
        "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
        "sys/fs/ext4/features/verity": "supported\n",
        "run/systemd/timesync/synchronized": "",
        "run/systemd/system/unit": "",
        "usr/lib/systemd/libsystemd-shared-252.so": "",
    }
    for path, text in {**usual, **(files or {})}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def pci_device(address: str, vendor: str, device: str, kind: str = "0x030200") -> dict[str, str]:
    """The files of a device on the PCI bus."""
    folder = f"sys/bus/pci/devices/{address}"
    return {f"{folder}/class": f"{kind}\n", f"{folder}/vendor": f"{vendor}\n", f"{folder}/device": f"{device}\n"}
