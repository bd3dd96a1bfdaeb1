"""The power of the builder's machine fails, again and again: the next run finishes what was begun."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.journeys.conftest import PROGRAM, Demo, appliance, snapshot

INSTANTS = int(os.environ.get("INSTANTS", "12"))  # `make soak` takes more
SEED = 20260102
KEPT = ("workspace", "stick", "host/opt", "host/var/lib/appliance/models", "host/var/lib/appliance/trust")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The demo, in a process group of its own."""
    return subprocess.Popen(
        [*PROGRAM, "demo", "--folder", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, whatever became of their parents."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if entry.name.isdigit() and int(entry.name) != os.getpid() and str(folder) in words:
            found.append(words)
    return found


@pytest.mark.ci
@pytest.mark.timeout(2400)
def test_kill_at_any_instant_and_the_next_run_finishes_with_the_same_bundle(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    started = time.monotonic()
    assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
    whole_s = time.monotonic() - started
    instants = sorted(random.Random(SEED).uniform(0.02, 0.98) for _ in range(INSTANTS))
    killed = 0
    for number, instant in enumerate(instants):
        shutil.rmtree(folder)
        child = start(folder)
        time.sleep(instant * whole_s)
        if child.poll() is None:
            killed += 1
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        done = appliance("demo", "--folder", folder, "--json", timeout_s=600)
        assert done.code == 0, f"after a kill at {instant:.0%}: {done.err[-3000:]}"
        assert json.loads(done.out)["manifest"] == demo.answer["manifest"]
        if number % 5 == 0:
            before = {name: snapshot(folder / name) for name in KEPT}
            assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
            assert before == {name: snapshot(folder / name) for name in KEPT}
    assert killed >= INSTANTS * 3 // 4
    assert processes_in(folder) == []
