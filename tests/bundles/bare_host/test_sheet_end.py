"""However the sheet ends, the folder that it has made in memory is gone, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.attacks.harness import Stick
from tests.sim.bare import EACH_SHELL, SHELLS, follow, print_sheet


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Where the sheet makes its folder; another run's folder lies there, too."""
    other = tmp_path / "operator" / "boot.other1"
    other.mkdir(parents=True)
    (other / "root.json").write_text("of another run")
    return other.parent


def folders(memory: Path) -> list[str]:
    return [path.name for path in memory.glob("*oot.*")]


@pytest.mark.parametrize("shell", EACH_SHELL)
@pytest.mark.parametrize(("attack", "code"), [("", 0), ("BOOT/evil.py", 4), ("metadata/evil.json", 4)])
def test_folder_is_gone_after_a_right_stick_and_a_refused_one(
    stick: Stick, memory: Path, shell: str, attack: str, code: int
) -> None:
    if attack:
        (stick.path / attack).write_text("")
    done = follow(stick.path, print_sheet(stick), shell, memory)
    assert (done.returncode, folders(memory)) == (code, ["boot.other1"]), done.stderr
    assert os.listdir(memory / "boot.other1") == ["root.json"]


@pytest.mark.parametrize("shell", EACH_SHELL)
def test_folder_is_gone_after_a_wrong_path(memory: Path, stick: Stick, shell: str) -> None:
    done = follow(stick.path / "blobs", print_sheet(stick).replace("${1:?}", "$1/no such"), shell, memory)
    assert (done.returncode, folders(memory)) == (2, ["boot.other1"])


@pytest.mark.parametrize("shell", EACH_SHELL)
@pytest.mark.parametrize("program", ["openssl dgst", "python3 -I"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_folder_is_gone_after_an_interruption(
    stick: Stick, memory: Path, shell: str, program: str, sent: signal.Signals
) -> None:
    slow, started = memory / "slow", memory / "started"
    slow.write_text(f"#!/bin/sh\nls {memory} >{started}.part; mv {started}.part {started}; exec sleep 60\n")
    slow.chmod(0o755)
    text = print_sheet(stick).replace("/dev/shm ", f"{memory} ")
    (memory / "sheet").write_text(text.replace(program, f"{slow} {program.split()[1]}"))
    argv = [*SHELLS[shell], str(memory / "sheet"), str(stick.path)]
    with subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not started.exists():
            assert running.poll() is None
            time.sleep(0.01)
        os.killpg(running.pid, sent)
        code = running.wait(30)
    assert len([name for name in started.read_text().split() if name.startswith("boot.")]) == 2
    assert (code, folders(memory)) == (130, ["boot.other1"])
