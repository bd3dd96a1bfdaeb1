"""strace on a host that has none: this machine's own, with the libraries that it was linked to."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.bed.abilities import no_strace
from tests.bed.host import Host

FOLDER = "/var/tmp/strace"
_LIBRARY = re.compile(r"(/\S+) \(0x")
_OPENED = re.compile(r'openat2?\([^"]*"(?:[^"]*/)?([0-9a-f]{64})"[^=]*= (\d+)')


def missing() -> str | None:
    """Why nothing can be traced, or None where it can."""
    return no_strace()


def put_strace(host: Host) -> list[str]:
    """Put strace onto a host.

    Returns:
        The words that run it there; its options and a command follow.
    """
    program = shutil.which("strace")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [Path(name) for name in _LIBRARY.findall(linked)]
    with tempfile.TemporaryDirectory() as name:
        for path in (Path(program), *libraries):
            shutil.copy(path.resolve(), Path(name) / path.name)
        host.put(Path(name), FOLDER)
    [loader] = [path.name for path in libraries if path.name.startswith("ld-linux")]
    return [f"{FOLDER}/{loader}", "--library-path", FOLDER, f"{FOLDER}/strace"]


def opened_blobs(log: str) -> set[str]:
    """Names of the blobs that a traced program opened, by what strace wrote of `openat`."""
    return {name for name, _ in _OPENED.findall(log)}
