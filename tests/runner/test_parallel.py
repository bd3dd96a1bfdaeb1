"""Several processes share the tests by file, and the journeys come first and stay together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

TOP = Path(__file__).resolve().parents[2]
NAMES = ("tests/a/test_1.py", "tests/b/test_2.py", "tests/journeys/test_01.py", "tests/journeys/test_02.py")


def test_journeys_come_first_in_one_process_and_every_file_stays_whole(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        # More tests elsewhere: it is not their number that counts.
        count = 2 if "journeys" in name else 6
        (tmp_path / name).write_text("".join(f"def test_{number}(): pass\n" for number in range(count)))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    argv = [sys.executable, "-m", "pytest", "-p", "tests.runner.parallel", "-p", "no:cacheprovider", "-v", "-n", "2"]
    env = {**os.environ, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [*argv, "-c", str(tmp_path / "pytest.ini"), str(tmp_path)],
        cwd=TOP,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ran = re.findall(r"^\[(gw\d)\].* PASSED \S*?(tests/[^:]+)::test_\d", done.stdout, re.MULTILINE)
    assert len(ran) == 16, done.stdout
    workers = {name: {worker for worker, other in ran if other == name} for name in NAMES}
    assert [name for name in NAMES if len(workers[name]) != 1] == []
    assert workers[NAMES[2]] == workers[NAMES[3]]
    [journeys] = workers[NAMES[2]]
    first = next(name for worker, name in ran if worker == journeys)
    assert first == NAMES[2]
