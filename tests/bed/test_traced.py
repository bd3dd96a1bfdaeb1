"""Every byte of a blob that a program reads is counted, in each of its threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.fixtures import require
from tests.bed.traced import blob_bytes, missing, trace_reads

NAME = "0f" * 32
PROGRAM = """
import os, sys, threading
def work():
    with open(sys.argv[1], "rb", buffering=0) as file:
        file.read(700)
        os.preadv(file.fileno(), [bytearray(200)], 0)
        os.pread(file.fileno(), 100, 900)
        os.pread(file.fileno(), 100, 5000)
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_reads_of_a_blob_are_added_up(tmp_path: Path, threads: int) -> None:
    require(missing())
    blob = tmp_path / NAME
    blob.write_bytes(bytes(1000))
    (tmp_path / "log").mkdir()
    command = [*trace_reads(["strace"], str(tmp_path / "log")), sys.executable, "-c", PROGRAM, str(blob), str(threads)]
    subprocess.run(command, check=True, timeout=60)
    log = "".join(path.read_text() for path in (tmp_path / "log").iterdir())
    assert blob_bytes(log) == ({NAME: threads * 1000} if threads else {})
