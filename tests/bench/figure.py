"""One figure: what was measured, against what, and how; and the measuring of child processes.

Rules:
- a figure is a ratio to the peer or to a limit; nothing is rounded in our favour, and a missed one is marked as missed;
- sides take turns, each several times, and the best of each counts: the machine's other work only ever adds;
- a child is measured by the kernel: the seconds that it took, those it had the processor, and the most memory it held.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Figure:
    """One row.

    Args:
        what: was measured.
        against: the peer or limit.
        ours, theirs: in the same unit; for a limit, `theirs` is the limit.
        reach: the greatest ratio that counts as reached.
        unit: of both.
        decimals: of both, when they are shown.
    """

    what: str
    against: str
    ours: float
    theirs: float
    reach: float
    unit: str = "s"
    decimals: int = 2

    @property
    def ratio(self) -> float:
        """Ours to theirs."""
        return self.ours / self.theirs

    @property
    def is_reached(self) -> bool:
        """Whether the figure is what was promised."""
        return self.ratio <= self.reach

    def row(self) -> str:
        """The row in Markdown."""
        ours, theirs = (f"{value:.{self.decimals}f} {self.unit}" for value in (self.ours, self.theirs))
        verdict = "reached" if self.is_reached else "**missed**"
        ratio = math.ceil(self.ratio * 100 - 1e-9) / 100  # up, never down: 0.604 is not 0.60
        return f"| {self.what} | {self.against} | {ours} / {theirs} = {ratio:.2f} | ≤ {self.reach:.2f} | {verdict} |"


@dataclass(frozen=True)
class Taken:
    """What a child took: seconds, seconds of processor, bytes of memory at most."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


# A process of its own, since the memory of the process that starts a child counts as the child's.
_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
taken = time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
print("", *taken, os.waitstatus_to_exitcode(status), file=sys.stderr)
"""


def run(*command: str | Path, shell: str = "", cwd: Path = TOP) -> Taken:
    """Run a program that must succeed; its output is shown only when it does not.

    Args:
        command: the program and its words.
        shell: a line for `sh` instead of `command`.
        cwd: where.
    """
    words = ["sh", "-c", shell] if shell else [str(word) for word in command]
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *words]
    done = subprocess.run(launcher, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd, check=True)
    output, _, report = done.stderr.rstrip().rpartition("\n")
    wall_s, cpu_s, peak_kib, code = (float(word) for word in report.split())
    if code:
        raise SystemExit(f"bench: {words[:3]} ended with {code:.0f}\n{output[-2000:]}")
    return Taken(wall_s, cpu_s, int(peak_kib) << 10)


def best(*sides: Sequence[Taken]) -> list[Taken]:
    """The best of each side: the least time, the least processor time, and the most memory, each on its own."""
    return [
        Taken(min(one.wall_s for one in side), min(one.cpu_s for one in side), max(one.peak_bytes for one in side))
        for side in sides
    ]


def take_turns(sides: Sequence[Callable[[], Taken]], rounds: int) -> list[Taken]:
    """The best of each side, one side after the other, `rounds` times."""
    taken = [[side() for side in sides] for _ in range(rounds)]
    return best(*zip(*taken, strict=True))
