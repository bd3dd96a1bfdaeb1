"""Small disks that are mounted for a test: real file systems on a real block device of the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SKIP = "this machine lets nobody mount a small disk"


@contextmanager
def mounted_disk(folder: Path, size_mib: int = 32) -> Iterator[Path]:
    """An ext4 file system in an image, mounted by loop; unmounted at the end where the test has not done it.

    Args:
        folder: for the image and the mount point.
        size_mib: of the image.
    """
    image, point = folder / "disk.img", folder / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    if os.geteuid() or not (_is_done("mkfs.ext4", "-q", image) and _is_done("mount", "-o", "loop", image, point)):
        pytest.skip(SKIP)
    try:
        yield point
    finally:
        while os.path.ismount(point):
            subprocess.run(("umount", "-l", point), check=True)


def _is_done(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
