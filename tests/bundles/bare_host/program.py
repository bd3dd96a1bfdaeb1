"""A small program for a bare host: a wheel of this project's name that repeats its arguments."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from appliance.builder.chunking.chunker import Source
from signing.digest import Digest, sha256
from tests.appliance.sim_host import write_wheel

MAIN = b"""import json, os, sys
import helper

def main():
    print(json.dumps({"arguments": sys.argv[1:], "path": sys.path, "helper": helper.__file__}))
"""
OWN = {"appliance/__init__.py": (b"", 0o644), "appliance/cli/__init__.py": (b"", 0o644)}
OWN["appliance/cli/main.py"] = (MAIN, 0o644)
HELPER = {"helper.py": (b"WHO = 'the program'\n", 0o644), "helper-1.0.data/scripts/helper": (b"#!/bin/sh\n", 0o755)}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
FOR_THIS_PYTHON = f"cp{PYTHON.replace('.', '')}"


def program_sources(folder: Path, helper: dict[str, tuple[bytes, int]] | None = None) -> list[Source]:
    """The program's own wheel, one that it imports for this Python, one for another, and one that no host needs first.

    Args:
        folder: for the wheels.
        helper: files of the one that it imports.
    """
    own = write_wheel(folder, "airgap_appliance", "9.9", OWN)
    needed = write_wheel(folder, "helper", "1.0", helper or HELPER)
    other = write_wheel(folder, "helper", "2.0", {"helper.py": (b"WHO = 'for another Python'\n", 0o644)})
    later = write_wheel(folder, "later", "1.0", {"later.py": (b"", 0o644)})
    return [
        _source("", own),
        _source(f"{FOR_THIS_PYTHON}/", needed),
        _source("cp27/", other),
        Source(f"wheels/{later.name}", "wheel", file=later, record=_record_of(later)),
    ]


def _source(below: str, wheel: Path) -> Source:
    return Source(f"wheels/{below}{wheel.name}", "wheel", file=wheel, bootstrap=True, record=_record_of(wheel))


def _record_of(wheel: Path) -> Digest:
    # Not the builder's own reader, which packs no wheel that a host would refuse.
    with zipfile.ZipFile(wheel) as archive:
        return sha256(archive.read(next(name for name in archive.namelist() if name.endswith("/RECORD"))))
