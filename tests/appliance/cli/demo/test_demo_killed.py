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

from tests.journeys.conftest import PROGRAM, appliance, snapshot

INSTANTS = int(os.environ.get("INSTANTS", "6"))  # `make soak` takes more
SEED = 20260102
KEPT = ("workspace", "stick", "host/opt", "host/var/lib/appliance/models", "host/var/lib/appliance/trust")


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


def remove(folder: Path) -> None:
    """Remove a demo. The folders of a finished bundle are read-only."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def kill_at(instant: float, folder: Path, whole_s: float) -> float:
    """Begin a demo anew and kill it after a part of its time. One that was faster is begun again.

    Args:
        instant: the part, from 0 to 1.
        folder: of the demo before it; removed.
        whole_s: how long a demo took, in seconds.

    Returns:
        How long a demo takes as far as is known: the machine may have other work, too.
    """
    while True:
        remove(folder)
        started = time.monotonic()
        with (folder.parent / "messages").open("wb") as messages:
            child = subprocess.Popen(
                [*PROGRAM, "demo", "--folder", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,
            )
        try:
            code = child.wait(instant * whole_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        if code is None and child.wait() == -signal.SIGKILL:
            return whole_s
        assert child.wait() == 0, (folder.parent / "messages").read_text()[-3000:]
        whole_s = time.monotonic() - started


def instants() -> list[float]:
    """One instant in each of as many equal parts of the time, so that a few of them meet every step."""
    noise = random.Random(SEED)
    return [0.02 + 0.96 * (number + noise.random()) / INSTANTS for number in range(INSTANTS)]


@pytest.mark.ci
@pytest.mark.timeout(200 * INSTANTS)
def test_kill_at_any_instant_and_the_next_run_finishes_with_the_same_bundle(tmp_path: Path) -> None:
    # It lies beside no journey, so that another process can run it: each demo here is its own.
    folder = tmp_path / "demo"
    first = appliance("demo", "--folder", folder, "--json", timeout_s=600)
    assert first.code == 0, first.err[-3000:]
    # The second one shows how long the next ones take: the first may find less in the caches.
    remove(folder)
    started = time.monotonic()
    assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
    whole_s = time.monotonic() - started
    for number, instant in enumerate(instants()):
        whole_s = kill_at(instant, folder, whole_s)
        done = appliance("demo", "--folder", folder, "--json", timeout_s=600)
        assert done.code == 0, f"after a kill at {instant:.0%}: {done.err[-3000:]}"
        assert json.loads(done.out)["manifest"] == json.loads(first.out)["manifest"]
        if number % 5 == 0:
            before = {name: snapshot(folder / name) for name in KEPT}
            assert appliance("demo", "--folder", folder, timeout_s=600).code == 0
            assert before == {name: snapshot(folder / name) for name in KEPT}
    assert processes_in(folder) == []
