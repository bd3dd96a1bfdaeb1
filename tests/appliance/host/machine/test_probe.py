"""The probe shows what this user can see, and names what not. Other machines are folders here."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

from appliance.host.machine import disks
from appliance.host.machine.card import BY_FLAGS, Card, card_value
from appliance.host.machine.gpus import read_gpus
from appliance.host.machine.libraries import read_libraries
from appliance.host.machine.probe import SYSTEMCTL, probe, probe_essentials, variants_by_flags
from tests.appliance.sim_card import NVIDIA, check_card, pci_device, write_machine

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def absent(_command: Sequence[str]) -> str:
    return ""


def look(root: Path) -> Card:
    return probe(NOW, absent, root=root)


def test_this_machine_has_a_card_for_every_user() -> None:
    card = probe(NOW, absent)
    check_card(card_value(card))
    assert card.memory.ram_bytes > 1 << 28
    assert card.cpu.engine_threads >= 1
    assert card.disks
    assert card.clock.time == "2026-01-02T03:04:05Z"


def test_this_machine_has_versions_of_its_libraries() -> None:
    found = read_libraries()
    assert [int(part) for part in found.glibc.split(".")] >= [2, 17]
    assert found.glibcxx.startswith("3.4")
    assert found.cxxabi.startswith("1.3")


def test_essentials_are_those_of_the_whole_card_and_try_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_machine(tmp_path)
    whole = look(root)

    def refuse(*_: object) -> None:
        raise AssertionError("an install needs no child, no disk and no graphics processor for its verdict")

    for slow in ("spawn", "read_disks", "read_gpus"):
        monkeypatch.setattr(f"appliance.host.machine.probe.{slow}", refuse)
    card = probe_essentials(NOW, absent, root)
    check_card(card_value(card))
    assert (card.system, card.cpu, card.memory) == (whole.system, whole.cpu, whole.memory)
    assert (card.gpus, card.disks) == ((), ())
    assert "not read" in card.unseen[-1]


def test_another_machine_is_shown_as_its_files_describe_it(tmp_path: Path) -> None:
    card = look(write_machine(tmp_path))
    assert (card.system.name, card.system.kernel) == ("Debian GNU/Linux 12 (toy)", "6.1.0-toy")
    assert card.system.systemd == "252"
    assert (card.cpu.model, card.cpu.quota_millicores, card.cpu.engine_threads) == ("Toy 3000 @ 2 GHz", 1500, 1)
    assert (card.memory.ram_bytes, card.memory.limit_bytes) == (16_000_000 << 10, 7_000_000_000)
    assert (card.kernel.cgroup_version, card.kernel.has_fsverity, card.kernel.has_device_mapper) == (2, True, True)
    assert card.clock.is_synchronised is True
    assert [disk.mount for disk in card.disks] == ["/"]
    assert card.unseen == ()


def test_machine_that_shows_nothing_has_a_card_that_names_what_is_unseen(tmp_path: Path) -> None:
    card = look(tmp_path)
    assert card.memory.ram_bytes == 0
    assert card.kernel.cgroup_version is None
    assert card.kernel.has_fsverity is None
    assert card.clock.is_synchronised is None
    unseen = " ".join(card.unseen)
    for word in ("processor flags", "memory", "disks", "control groups"):
        assert word in unseen


def test_systemd_that_is_installed_but_not_running_does_not_count(tmp_path: Path) -> None:
    shutil.rmtree(write_machine(tmp_path) / "run/systemd")
    card = look(tmp_path)
    assert card.system.systemd == ""
    assert "systemd 252" in card.unseen[0]


def test_version_of_systemd_comes_from_systemctl_where_no_library_names_it(tmp_path: Path) -> None:
    (write_machine(tmp_path) / "usr/lib/systemd/libsystemd-shared-252.so").unlink()
    assert look(tmp_path).system.systemd == "unknown"

    def tool(command: Sequence[str]) -> str:
        return "systemd 256 (256.7-1)\n+PAM\n" if command == (SYSTEMCTL, "--version") else ""

    assert probe_essentials(NOW, tool, tmp_path).system.systemd == "256"


def test_verdict_without_a_trial_is_called_one_by_flags(tmp_path: Path) -> None:
    card = look(write_machine(tmp_path))
    assert {variant.how for variant in card.cpu.variants} == {BY_FLAGS}
    fit = [variant.name for variant in card.cpu.variants if variant.is_fit]
    assert fit == ["haswell", "piledriver", "ivybridge", "sandybridge", "sse42", "x64"]
    assert all(variant.reason.startswith("lacks ") for variant in card.cpu.variants if not variant.is_fit)
    assert [variant.name for variant in variants_by_flags(frozenset()) if variant.is_fit] == ["x64"]


NVIDIA_FILES = {
    **pci_device("0000:01:00.0", "0x10de", "0x2330"),
    **pci_device("0000:00:02.0", "0x1234", "0x1111", "0x030000"),
    **pci_device("0000:00:03.0", "0x8086", "0x100e", "0x020000"),
    "proc/driver/nvidia/version": NVIDIA,
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA Toy\nIRQ:   1\n",
}


def test_gpu_has_its_name_from_the_driver_and_its_memory_from_the_vendors_tool(
    tmp_path: Path,
) -> None:
    unseen: list[str] = []
    (gpu,) = read_gpus(write_machine(tmp_path, NVIDIA_FILES), absent, unseen)
    assert (gpu.address, gpu.name, gpu.memory_bytes, gpu.driver) == ("0000:01:00.0", "NVIDIA Toy", None, "550.54.15")
    assert "0000:01:00.0" in unseen[0]

    def tool(command: Sequence[str]) -> str:
        assert command[0] == "/usr/bin/nvidia-smi"
        return "00000000:01:00.0, NVIDIA Toy 80GB, 81559, 550.54.15\nnonsense\n"

    unseen.clear()
    (gpu,) = read_gpus(tmp_path, tool, unseen)
    assert (gpu.name, gpu.memory_bytes) == ("NVIDIA Toy 80GB", 81559 << 20)
    assert unseen == []


def test_graphics_processor_without_a_driver_is_found_on_the_bus(tmp_path: Path) -> None:
    files = pci_device("0000:01:00.0", "0x10de", "0x2330")
    files |= {
        **pci_device("0000:02:00.0", "0x1002", "0x744c"),
        "sys/bus/pci/devices/0000:02:00.0/mem_info_vram_total": "24",
    }
    found = read_gpus(write_machine(tmp_path, files), absent, [])
    assert [(gpu.vendor, gpu.memory_bytes, gpu.driver) for gpu in found] == [("0x10de", None, ""), ("0x1002", 24, "")]


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (errno.ENODATA, True),
        (errno.EOPNOTSUPP, False),
        (errno.ENOTTY, False),
        (errno.EACCES, None),
        (0, True),
    ],
)
def test_the_answer_of_the_file_system_decides_whether_it_can_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, answer: bool | None
) -> None:
    def ioctl(_descriptor: int, request: int, _data: bytearray) -> int:
        assert request == disks.MEASURE_VERITY
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert disks.can_seal(tmp_path) is answer
    assert disks.can_seal(tmp_path / "none") is None


def test_mounts_are_listed_once_with_spaces_and_without_memory(tmp_path: Path) -> None:
    (tmp_path / "mnt" / "a disk").mkdir(parents=True)
    mounts = "/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /mnt/a\\040disk ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
    mounts += "/dev/x /gone xfs rw 0 0\n"
    unseen: list[str] = []
    write_machine(tmp_path, {"proc/self/mounts": mounts})
    # Both mounts lie on one file system here, so the second is the first, shown again.
    assert [disk.mount for disk in disks.read_disks(tmp_path, unseen)] == ["/"]
    assert unseen == ["disk at /gone: No such file or directory"]
    write_machine(tmp_path, {"proc/self/mounts": "/dev/sda1 /mnt/a\\040disk ext4 rw 0 0\n"})
    assert [disk.mount for disk in disks.read_disks(tmp_path, unseen)] == ["/mnt/a disk"]
