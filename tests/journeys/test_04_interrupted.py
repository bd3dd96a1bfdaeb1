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


def kill_at(instant: float, folder: Path, whole_s: float) -> float:
    """Begin a demo anew and kill it after a part of its time. One that was faster is begun again.

    Returns:
        How long a whole demo takes, in seconds, as far as is known: the machine may have other work, too.
    """
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        child = start(folder)
        try:
            child.wait(instant * whole_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return whole_s
        assert child.returncode == 0
        whole_s = time.monotonic() - started


@pytest.mark.ci
@pytest.mark.timeout(2400)
def test_kill_at_any_instant_and_the_next_run_finishes_with_the_same_bundle(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    started = time.monotonic()
    assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
    whole_s = time.monotonic() - started
    instants = sorted(random.Random(SEED).uniform(0.02, 0.98) for _ in range(INSTANTS))
    for number, instant in enumerate(instants):
        whole_s = kill_at(instant, folder, whole_s)
        done = appliance("demo", "--folder", folder, "--json", timeout_s=600)
        assert done.code == 0, f"after a kill at {instant:.0%}: {done.err[-3000:]}"
        assert json.loads(done.out)["manifest"] == demo.answer["manifest"]
        if number % 5 == 0:
            before = {name: snapshot(folder / name) for name in KEPT}
            assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
            assert before == {name: snapshot(folder / name) for name in KEPT}
    assert processes_in(folder) == []
