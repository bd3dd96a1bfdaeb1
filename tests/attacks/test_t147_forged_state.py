"""T147: who has taken over an engine forges its state, so that a scrub by root ends another process."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.engine.state import SERVING, EngineState, write_state
from appliance.host.release.release import Release
from appliance.serve.supervisor import scrubbing
from appliance.serve.supervisor.scrubbing import end_engine
from tests.attacks.harness import guard_off, row
from tests.sim.releases import install_toy

ROW = row(147)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setattr(scrubbing, "find_engine_socket", lambda *_: tmp_path / "toy.sock")
    return install_toy(tmp_path / "host")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/usr/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def forge(folder: Path, pid: int) -> None:
    write_state(folder / "toy.sock", EngineState(SERVING, pid=pid))


def test_unattacked_engine_of_this_release_is_ended(release: Release, tmp_path: Path) -> None:
    program = release.runtime / "llama-server"
    program.unlink(missing_ok=True)
    program.parent.mkdir(exist_ok=True)
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as engine:
        forge(tmp_path, engine.pid)
        assert end_engine(release, "toy")
        assert engine.wait(5) == -signal.SIGBUS


def test_attacked_bystander_goes_on(release: Release, tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    forge(tmp_path, bystander.pid)
    assert not end_engine(release, "toy")
    assert bystander.poll() is None


@pytest.mark.parametrize("pid", [0, 1, 1 << 21])
def test_attacked_by_a_number_that_means_more_than_one_process(release: Release, tmp_path: Path, pid: int) -> None:
    forge(tmp_path, pid)
    assert not end_engine(release, "toy")


def test_unguarded_bystander_is_ended(release: Release, tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    forge(tmp_path, bystander.pid)
    with guard_off(ROW.guard, lambda *_: True):
        assert end_engine(release, "toy")
    assert bystander.wait(5) == -signal.SIGBUS
