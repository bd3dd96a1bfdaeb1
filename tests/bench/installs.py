"""The figure of an install: the demo's bundle onto a fresh host tree, from nothing but the stick."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.bench.figure import Figure, Taken, take_turns
from tests.bench.material import PROGRAM, Material, appliance

LIMIT_S = 15.0


def install(material: Material) -> list[Figure]:
    """Install the demo's bundle below a fresh `--prefix`, against its limit on two cores."""
    workspace, bundle = material.demo
    root, host = workspace / "trust" / "root.json", material.folder / "installed"
    shown = subprocess.run(
        [PROGRAM, "trust", "show", "--workspace", workspace, "--json"], check=True, capture_output=True
    )
    [fingerprint] = json.loads(shown.stdout)["roles"]["root"]["fingerprints"]

    def fresh() -> Taken:
        _remove(host)
        appliance("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", host)
        return appliance("install", bundle, "--prefix", host, "--yes")

    [taken] = take_turns((fresh,), 3)
    _remove(host)
    return [Figure("install of the demo on a fresh host", f"{LIMIT_S:.0f} s", taken.wall_s, LIMIT_S, 1.0)]


def _remove(host: Path) -> None:
    shutil.rmtree(host, ignore_errors=True)
