"""The runtime that people use today: llama-cpp-python as `pip install` compiles it for this very processor.

Owns that wheel, compiled once (8 minutes on two cores) and kept in the cache of this machine, outside every checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.appliance.shipped import shipped_cache, shipped_runtime, shipped_sdist


def stock_wheel() -> Path:
    """Compile the stock wheel from the same sdist, or take it from the cache."""
    version = shipped_runtime().version.partition("+")[0]
    folder = shipped_cache().folder("stock", version)
    found = sorted(folder.glob("*.whl"))
    if found:
        return found[0]
    print("compiling the stock wheel: about 8 minutes, once", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="appliance-stock-") as name:
        work = Path(name)
        sdist = work / f"llama_cpp_python-{version}.tar.gz"
        shutil.copy(shipped_sdist(), sdist)
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
        command: list[str | Path] = [work / "venv/bin/python", "-m", "pip", "wheel", "--quiet", "--no-deps"]
        environment = {name: value for name, value in os.environ.items() if name != "CMAKE_ARGS"}
        subprocess.run([*command, "--no-cache-dir", "--wheel-dir", work / "out", sdist], check=True, env=environment)
        [made] = (work / "out").glob("*.whl")
        shutil.copy(made, folder / f".{made.name}.part")
        (folder / f".{made.name}.part").rename(folder / made.name)
        return folder / made.name


def unpack(wheel: Path, folder: Path) -> Path:
    """Lay a wheel into a folder of its own, as an installer would."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
