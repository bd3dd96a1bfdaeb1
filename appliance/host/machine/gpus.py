"""The graphics processors of a host: what the kernel shows, and what the vendor's own tool adds.

Owns the reading of `/sys/bus/pci` and `/proc/driver/nvidia`, and one call of `nvidia-smi` where it is installed.
Nothing is installed or loaded for it.

Rules:
- the list of devices is that of the PCI bus; the other sources only add to it;
- a size of memory that no source shows is null, never guessed from an address window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from appliance.host.machine.card import Gpu
from appliance.host.machine.proc_file import read_text

Run = Callable[[Sequence[str]], str]
"""Runs a program by its absolute path and returns its output; empty where it is missing or fails."""

NVIDIA_SMI = "/usr/bin/nvidia-smi"
_QUERY = ("--query-gpu=pci.bus_id,name,memory.total,driver_version", "--format=csv,noheader,nounits")
_DISPLAY, _VIRTUAL = "0x03", ("0x1234", "0x1013", "0x15ad", "0x1af4", "0x1b36", "0x80ee")
"""The PCI class of display controllers, and vendors whose controllers exist in virtual machines only."""

_DRIVER = re.compile(r"Kernel Module(?: for \S+)? +([0-9.]+)")


def read_gpus(root: Path, run: Run, unseen: list[str]) -> tuple[Gpu, ...]:
    """List the graphics processors that could compute.

    Args:
        root: `/`, or a folder in its place.
        run: starts `nvidia-smi`.
        unseen: receives a line for each thing that could not be seen.
    """
    found = {}
    for device in sorted(_folders(root / "sys/bus/pci/devices")):
        vendor = read_text(device / "vendor")
        if read_text(device / "class").startswith(_DISPLAY) and vendor not in _VIRTUAL:
            found[device.name] = Gpu(device.name, vendor, read_text(device / "device"), "", _amd_memory(device), "")
    driver = _DRIVER.search(read_text(root / "proc/driver/nvidia/version"))
    for folder in _folders(root / "proc/driver/nvidia/gpus"):
        fields = _fields(read_text(folder / "information"))
        known = found.get(folder.name, Gpu(folder.name, "0x10de", "", "", None, ""))
        found[folder.name] = replace(known, name=fields.get("Model", ""), driver=driver.group(1) if driver else "")
    if any(gpu.vendor == "0x10de" for gpu in found.values()):
        _add_nvidia(found, run)
    for gpu in found.values():
        if gpu.memory_bytes is None:
            unseen.append(f"memory of the graphics processor {gpu.address}: no driver or tool shows it")
    return tuple(found[address] for address in sorted(found))


def _add_nvidia(found: dict[str, Gpu], run: Run) -> None:
    for line in run((NVIDIA_SMI, *_QUERY)).splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 4:
            continue
        # The tool writes the domain with eight digits, the kernel with four.
        address = re.sub(r"^0000([0-9a-f]{4}:)", r"\1", parts[0].lower())
        known = found.get(address, Gpu(address, "0x10de", "", "", None, ""))
        size = int(parts[2]) << 20 if parts[2].isdecimal() else None
        found[address] = replace(known, name=parts[1], memory_bytes=size, driver=parts[3])


def _amd_memory(device: Path) -> int | None:
    text = read_text(device / "mem_info_vram_total")
    return int(text) if text.isdecimal() else None


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _folders(path: Path) -> list[Path]:
    try:
        return [folder for folder in path.iterdir() if folder.is_dir()]
    except OSError:
        return []
