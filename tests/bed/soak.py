"""Runs every test that needs a bed again and again: `python -m tests.bed.soak ROUNDS [PYTEST-ARGUMENT…]`.

One round is one run of pytest in the CI tier, so that nothing is skipped unseen. The first test that fails ends it,
with all that its round said. The last line tells rounds, tests, failures and minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_BED = ["-m", "(bed or vm) and not vagrant"]


@dataclass(frozen=True)
class Round:
    """How one run of the tests ended, and all that it printed."""

    tests: int
    failures: int
    code: int
    output: str


def run_round(arguments: Sequence[str]) -> Round:
    """Run the tests once; the first failure ends the run."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = Path(folder) / "report.xml"
        argv = [sys.executable, "-m", "pytest", "--exitfirst", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        ended = subprocess.run(
            [*argv, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TIER": "ci"},
        )
        tests, failures = _counts(report)
    return Round(tests, failures, ended.returncode, ended.stdout)


def _counts(report: Path) -> tuple[int, int]:
    """How many tests ran and how many of them failed."""
    if not report.exists():
        return 0, 0
    # Written by the pytest that we started a moment ago.
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    return total("tests") - total("skipped"), total("failures") + total("errors")


def main(arguments: Sequence[str]) -> int:
    """The command line: returns the exit code."""
    if not arguments or not arguments[0].isdigit() or int(arguments[0]) == 0:
        print("usage: python -m tests.bed.soak ROUNDS [PYTEST-ARGUMENT…]", file=sys.stderr)
        return 2
    rounds, tests, failures, code = int(arguments[0]), 0, 0, 0
    started = time.monotonic()
    done = 0
    while done < rounds and code == 0:
        done += 1
        began = time.monotonic()
        ended = run_round(list(arguments[1:]) or EVERY_BED)
        tests, failures, code = tests + ended.tests, failures + ended.failures, ended.code
        if code:
            print(ended.output)
        print(f"soak: round {done} of {rounds}: {ended.tests} tests in {time.monotonic() - began:.0f} s", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"soak: {done} of {rounds} rounds, {tests} tests, {failures} failures, {minutes:.1f} minutes")
    return code


if __name__ == "__main__":
    # A background job starts with this signal ignored, and the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Raised, so that the round that runs ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise SystemExit(main(sys.argv[1:]))
