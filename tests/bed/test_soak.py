"""The flake run: what it counts, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

TOP = Path(__file__).resolve().parents[2]


def _start(*words: str | Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.bed.soak", *map(str, words)]
    return subprocess.Popen(argv, cwd=TOP, stdout=subprocess.PIPE, text=True)


def _write(tmp_path: Path, body: str) -> tuple[str | Path, ...]:
    test = tmp_path / "test_tried.py"
    test.write_text(f"import os, time\n\ndef test_tried():\n    {body}\n")
    return test, "-p", "no:cacheprovider", "-m", "", f"--rootdir={tmp_path}", "-c", os.devnull


@pytest.mark.parametrize(("body", "code", "last"), [("pass", 0, "2 of 2 rounds"), ("assert 0", 1, "1 of 2 rounds")])
def test_rounds_are_counted_and_the_first_failure_ends_it(body: str, code: int, last: str, tmp_path: Path) -> None:
    with _start("2", *_write(tmp_path, body)) as soak:
        said, _ = soak.communicate(timeout=120)
    assert (soak.returncode, said.splitlines()[-1].removeprefix("soak: ").partition(",")[0]) == (code, last)


def test_round_that_runs_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    body = f"open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(120)"
    with _start("1", *_write(tmp_path, body)) as soak:
        end = time.monotonic() + 60
        while not (told.exists() and told.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        soak.send_signal(signal.SIGTERM)
        assert soak.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
