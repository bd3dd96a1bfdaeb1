"""Beds leave nothing behind: no process, mount, namespace, control group or temporary file, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.bed.fixtures import tree_folder
from tests.bed.fleet import Fleet
from tests.bed.ledger import Ledger
from tests.bed.leftovers import await_none, leftovers, open_descriptors
from tests.bed.nspawn import NspawnHost
from tests.bed.trees import DEBIAN_12

pytestmark = pytest.mark.ci
TOP = Path(__file__).resolve().parents[2]
# Makes every kind of bed, tells where, and waits to be killed. Whoever started the tests from a background job left
# SIGINT ignored, and that is inherited.
VICTIM = """
import json, signal, sys
from pathlib import Path
from tests.bed.fleet import Fleet
from tests.bed.ledger import Ledger
from tests.bed.nspawn import NspawnHost
signal.signal(signal.SIGINT, signal.default_int_handler)
tree = Path(sys.argv[1])
host, fleet, ledger = NspawnHost(tree), Fleet(tree, size=2), Ledger()
host.run(["systemd-run", "--quiet", "sleep", "1000"])
print(json.dumps(sorted(host.namespaces() | fleet.namespaces() | ledger.network.cell.namespaces)), flush=True)
ledger.run(["sh", "-c", "sleep 1000 & touch $0; sleep 1000", sys.argv[2]], timeout_s=1000)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, for this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_closed_beds_leave_nothing(temporary: Path) -> None:
    tree = tree_folder(DEBIAN_12)
    descriptors = open_descriptors()
    with NspawnHost(tree) as host, Fleet(tree, size=2) as fleet, Ledger() as ledger:
        host.run(["systemd-run", "--quiet", "sleep", "1000"])
        host.kill()
        host.boot()
        ledger.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        namespaces = host.namespaces() | fleet.namespaces() | ledger.network.cell.namespaces
        # The control: what is looked for is found while it is there.
        found = {line.split()[0] for line in leftovers(namespaces, os.getpid(), temporary)}
        assert "process" in found
    assert await_none(namespaces, os.getpid(), temporary) == []
    assert open_descriptors() == descriptors


def await_file(path: Path, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGINT,
    ],
    ids=lambda ending: ending.name,
)
def test_killed_tests_leave_nothing(temporary: Path, tmp_path: Path, ending: signal.Signals) -> None:
    tree = tree_folder(DEBIAN_12)
    busy = tmp_path / "busy"
    argv = [sys.executable, "-c", VICTIM, str(tree), str(busy)]
    with subprocess.Popen(argv, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as victim:
        assert victim.stdout is not None
        try:
            namespaces = frozenset(json.loads(victim.stdout.readline()))
            await_file(busy)
            victim.send_signal(ending)
            victim.wait(30)
        finally:
            victim.kill()
    assert len(namespaces) > 10
    assert await_none(namespaces, victim.pid, temporary) == []


def test_host_that_does_not_boot_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    tree_folder(DEBIAN_12)
    descriptors = open_descriptors()
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="did not boot"):
        NspawnHost(tmp_path / "tree")
    assert await_none(frozenset(), os.getpid(), temporary) == []
    assert open_descriptors() == descriptors
