"""Guests that are booted once and resumed ever after: memory and disk at the moment when the host was up.

Owns the cache key of a frozen guest and the two files `disk` and `state`. It must never resume what was frozen by
another QEMU, another machine shape, another kernel or another agent: all of that is in the key.

Rules:

- Nothing is plugged in when a guest is frozen; sticks are plugged after it was resumed.
- The clock and the random pool are set after each resume, since both stood still.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.bed.cache import Say, built, key_of
from tests.bed.guest_image import Image
from tests.bed.guest_machine import Machine, make_overlay
from tests.bed.guest_process import GuestProcess
from tests.bed.host import BedError

_SETTLE = "systemctl is-system-running --wait && sync && fstrim / && echo 3 > /proc/sys/vm/drop_caches"


@dataclass(frozen=True)
class Frozen:
    """A frozen guest.

    Args:
        folder: holds `disk` (qcow2 on top of the image's) and `state` (memory, zstd).
        image: what it was booted from.
        machine: its shape.
    """

    folder: Path
    image: Image
    machine: Machine

    @property
    def disk(self) -> Path:
        """The disk at the moment of freezing, never written to."""
        return self.folder / "disk"

    @property
    def state(self) -> Path:
        """The memory at that moment."""
        return self.folder / "state"


def place(image: Image, machine: Machine) -> Frozen:
    """Where the frozen guest of this image and shape is, whether or not it was made."""
    # The image's name covers kernel, packages and agent.
    key = key_of(image.name, json.dumps(machine.identity(), sort_keys=True))
    return Frozen(image.folder.with_name(f"frozen-{key}"), image, machine)


def freeze(image: Image, machine: Machine, say: Say) -> Frozen:
    """Boot a guest and freeze it: half a minute under emulation; instant when it was done before.

    Args:
        image: to boot.
        machine: to boot it on.
        say: told what is done.

    Raises:
        BedError: it did not boot, or not all of its services did.
    """
    frozen = place(image, machine)
    about = f"a frozen guest: {machine.accelerator}, {machine.cpu}, {machine.memory_mib} MiB (about 40 s)"
    built(frozen.folder.name, lambda folder: _freeze(image, machine, folder), say, about)
    return frozen


def _freeze(image: Image, machine: Machine, folder: Path) -> None:
    folder.mkdir()
    # Relative, so that the cache may be moved.
    make_overlay(Path("..") / image.folder.name / image.disk.name, "raw", folder / "disk")
    process = GuestProcess(machine, image.folder, folder / "disk")
    try:
        settled = process.agent.run(["bash", "-c", _SETTLE], {}, timeout_s=120)
        if settled.code:
            raise BedError(f"the guest did not come up whole: {settled.out}{settled.err}")
        process.save(folder / "state")
    finally:
        process.kill()
