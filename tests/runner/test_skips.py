"""A skipped test is counted by its reason, and in the CI tier only a machine's own lack is an excuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.abilities import BUILD_HINT, LACKS

pytestmark = pytest.mark.ci

TOP = Path(__file__).resolve().parents[2]
TESTS = f"""
import pytest

@pytest.mark.parametrize("number", range(3))
def test_of_what_the_machine_cannot(number):
    pytest.skip("{LACKS}namespaces: refused\\nand more")

def test_of_what_was_not_built():
    pytest.skip("needs the guest: {BUILD_HINT}")

def test_of_what_is_there():
    pass
"""


def run(folder: Path, tier: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TESTS)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.runner.skips",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        *options,
    ]
    env = {**os.environ, "TIER": tier, "PYTEST_ADDOPTS": ""}
    return subprocess.run([*argv, str(folder)], cwd=TOP, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["here", "in another process"])
def test_every_skip_is_counted_by_its_reason_and_is_fine_by_default(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "", *options)
    assert done.returncode == 0, done.stdout
    told = done.stdout.partition("= 4 not tested =")[2].splitlines()[1:3]
    assert told == [f"    3 × {LACKS}namespaces: refused", f"    1 × needs the guest: {BUILD_HINT}"]


def test_skip_that_somebody_could_have_prevented_fails_the_ci_tier(tmp_path: Path) -> None:
    done = run(tmp_path, "ci")
    assert done.returncode == 1
    assert "test_of_what_was_not_built was skipped, and the CI tier must run everything: needs the guest" in done.stdout
    assert "1 failed, 1 passed, 3 skipped" in done.stdout
    assert f"3 × {LACKS}namespaces: refused" in done.stdout
