"""The program of this checkout on a bare host, put there by the bed, to try parts of it on a real kernel.

Owns what is copied: the packages of this project and those that they import on a host. It stands for nothing that an
operator has: how a bare host gets its program is proven elsewhere.

Rules:

- it is for tests of parts that need a real kernel (sticks, disks), which no bundle of a model is built for;
- what was compiled here goes with it, since an emulated processor takes long for that; times are kept, so it counts.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bed.host import Host

FOLDER = "/root/checkout"
TOP = Path(__file__).resolve().parents[2]
OWN = ("appliance", "bundles", "signing")
OTHERS = ("click", "rich", "pyyaml", "cryptography", "cffi")
PYTHON = (3, 11)
"""What Debian 12 has, and so what the compiled parts must be for."""


def missing() -> str | None:
    """Why this checkout's program does not run on a Debian 12, or None where it does."""
    return None if sys.version_info[:2] == PYTHON else "needs Python 3.11, as Debian 12 has"


def put_checkout(host: Host) -> list[str]:
    """Put the program onto a Debian 12 that has nothing but `python3`.

    Args:
        host: fresh.

    Returns:
        The words that run a module of it as a program there, for `Host.run`; `-m` is the last of them.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in OWN:
            shutil.copytree(TOP / package, folder / package)
        for distribution in map(importlib.metadata.distribution, OTHERS):
            for place in {file.parts[0] for file in distribution.files or () if file.suffix in (".py", ".so")} - {".."}:
                source = Path(str(distribution.locate_file(place)))
                if source.is_dir():
                    shutil.copytree(source, folder / place)
                else:
                    shutil.copy2(source, folder / place)
        host.put(folder, FOLDER)
    return ["env", f"PYTHONPATH={FOLDER}", "python3", "-m"]
