"""strace on a host that has none: this machine's own, with the libraries that it was linked to."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bed.abilities import no_strace
from tests.bed.host import Host

FOLDER = "/var/tmp/strace"
_LIBRARY = re.compile(r"(/\S+) \(0x")
_READ = re.compile(r"^p?read(?:v|64|v2)?\(\d+<[^>]*/([0-9a-f]{64})>.* = ([1-9][0-9]*)$", re.MULTILINE)


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


def trace_reads(strace: Sequence[str], folder: str) -> list[str]:
    """The words that run a command, and write what it reads into a folder: a file for each of its threads."""
    calls = "trace=read,readv,pread64,preadv,preadv2"
    return [*strace, "-ff", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-e", calls, "-o", f"{folder}/thread"]


def blob_bytes(log: str) -> dict[str, int]:
    """How many bytes of each blob were read, by what `trace_reads` has written."""
    found: dict[str, int] = {}
    for name, size in _READ.findall(log):
        found[name] = found.get(name, 0) + int(size)
    return found
