"""Mutation testing of the trust kernel: `python -m tests.mutants [--sample N --seed S] [--module NAME]`.

Every small fault that `operators` can make in `signing/` must fail a test. The module's own tests run first, then
all that is about what the kernel promises. What survives must stand in `survivors.toml` with its reason.

Rules:
- a run begins with the unchanged kernel, which must pass: else every mutant would count as killed;
- what is listed is tried by its own module's tests alone: the others take minutes, and its reason says why they pass;
- the exit code is 0 where at least 95 % are killed, every survivor is listed, and every listed one survives;
- each result is written when it is known; `--resume` takes what earlier runs have killed as killed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.mutants.operators import Mutant, mutants
from tests.mutants.survivors import listed
from tests.mutants.trial import TOP, Limits, Outcome, Trial, prepare, source_of, start

MODULES = tuple(path.stem for path in sorted((TOP / "signing").glob("*.py")) if path.stem != "__init__")
RESULTS = TOP / ".demo" / "mutants.jsonl"
KILLED_MIN = 0.95
DURATIONS = RESULTS.with_suffix(".durations.json")
OWN, WIDER = Limits(cpu_s=15, wall_s=600, durations=DURATIONS), Limits(cpu_s=120, wall_s=1800)
# The rows of the list of threats that the kernel answers.
ROWS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 27, 30, 31)
Name = tuple[str, str]


def own_tests(module: str) -> list[str]:
    """The tests of one module: they are quick, and kill most."""
    tests = TOP / "tests/signing"
    found = sorted([*tests.glob(f"test_{module}*.py"), *(tests / module).glob("test_*.py")])
    return ["--noconftest", *(str(path.relative_to(TOP)) for path in found)]


def wider_tests() -> list[str]:
    """All that is about the kernel, but for seeded changes of a bundle, which take longest and are about its files."""
    kernel = [path for path in sorted((TOP / "tests/signing").rglob("test_*.py")) if path.stem != "test_mutation"]
    attacks = [path for row in ROWS for path in (TOP / "tests/attacks").glob(f"test_t{row:02}_*.py")]
    return [str(path.relative_to(TOP)) for path in (*kernel, *attacks)]


@dataclass
class Run:
    """What is known so far, and what is on trial."""

    jobs: int
    results: Path
    outcomes: dict[Name, Outcome]
    not_wider: Container[Name] = ()
    running: list[tuple[Mutant, Trial, bool]] = field(default_factory=list)

    def try_all(self, waiting: Sequence[Mutant]) -> None:
        """Try every mutant, as many at a time as there are jobs."""
        begun = time.monotonic()
        queue = list(reversed(waiting))
        while queue or self.running:
            while queue and len(self.running) < self.jobs:
                mutant = queue.pop()
                self.running.append((mutant, start(mutant.module, mutant.tree, own_tests(mutant.module), OWN), False))
            time.sleep(0.02)
            for one in list(self.running):
                self._look(*one)
            if sys.stderr.isatty():
                print(f"\r{len(waiting) - len(queue)} of {len(waiting)}", end="", file=sys.stderr)
        print(f"\r{len(waiting)} tried in {(time.monotonic() - begun) / 60:.1f} minutes")

    def _look(self, mutant: Mutant, trial: Trial, is_wider: bool) -> None:
        outcome = trial.poll()
        if outcome is None:
            return
        self.running.remove((mutant, trial, is_wider))
        if outcome is Outcome.SURVIVED and not is_wider and (mutant.module, mutant.name) not in self.not_wider:
            self.running.append((mutant, start(mutant.module, mutant.tree, wider_tests(), WIDER), True))
            return
        self.outcomes[mutant.module, mutant.name] = outcome
        with self.results.open("a") as file:
            line = [mutant.module, source_digest(mutant.module), mutant.name, outcome.value]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def end(self) -> None:
        """Stop what is on trial."""
        for _, trial, _ in self.running:
            end(trial)


def wait(trial: Trial) -> Outcome:
    """How a trial ends."""
    while (outcome := trial.poll()) is None:
        time.sleep(0.02)
    return outcome


def end(trial: Trial) -> None:
    """Stop a trial."""
    trial.deadline = 0
    wait(trial)


def unchanged_passes(modules: Iterable[str]) -> bool:
    """Whether the kernel as it is passes the tests, in the way in which a mutant is tried."""
    rounds = [(module, own_tests(module), OWN) for module in modules]
    for module, tests, limits in (*rounds, (MODULES[0], wider_tests(), WIDER)):
        trial = start(module, ast.parse(source_of(module).read_text()), tests, limits)
        try:
            outcome = wait(trial)
        except KeyboardInterrupt:
            end(trial)
            raise
        if outcome is not Outcome.SURVIVED:
            print(f"the unchanged {module} does not pass {' '.join(tests)}", file=sys.stderr)
            return False
    return True


def report(tried: Sequence[Mutant], outcomes: dict[Name, Outcome]) -> int:
    """Print what survived, and give the exit code."""
    known = listed()
    alive = {one for one, outcome in outcomes.items() if outcome is Outcome.SURVIVED}
    tried_names = [(mutant.module, mutant.name) for mutant in tried]
    killed = len(tried_names) - sum(name in alive for name in tried_names)
    unlisted = [mutant for mutant in tried if (mutant.module, mutant.name) in alive - set(known)]
    for mutant in unlisted:
        print(f"survived, and is not listed: signing/{mutant.module}.py:{mutant.line} {mutant.name}")
    stale = [name for name in tried_names if name in known and name not in alive]
    for module, name in stale:
        print(f"listed as a survivor, and was killed: {module} {name}")
    share = killed / len(tried) if tried else 0.0
    stopped = sum(outcomes[name] is Outcome.STOPPED for name in tried_names)
    print(
        f"{len(tried)} mutants, {killed} killed ({share:.1%}), of these {stopped} stopped;"
        f" {len(tried) - killed} survived, {len(tried) - killed - len(unlisted)} of them listed"
    )
    return int(bool(unlisted or stale) or share < KILLED_MIN)


def main(arguments: Sequence[str]) -> int:
    """The command line: returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Mutation testing of signing/.")
    parser.add_argument("--module", choices=MODULES, action="append", help="only this module of signing/")
    parser.add_argument("--sample", type=int, help="only so many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0, help="which ones a sample holds")
    parser.add_argument("--only", default="", help="only those whose name holds this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run ended")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is on trial is ended, too
    modules = asked.module or MODULES
    found = [mutant for module in modules for mutant in mutants(source_of(module).read_text(), module)]
    found = [mutant for mutant in found if asked.only in mutant.name]
    if asked.sample is not None:
        found = random.Random(asked.seed).sample(found, min(asked.sample, len(found)))
    for file in (asked.results, DURATIONS):
        file.parent.mkdir(exist_ok=True)
    if not asked.resume:
        asked.results.unlink(missing_ok=True)
    run = Run(asked.jobs, asked.results, earlier_kills(asked.results), set(listed()))
    prepare(wider_tests())
    if not unchanged_passes(modules):
        return 1
    try:
        run.try_all([mutant for mutant in found if (mutant.module, mutant.name) not in run.outcomes])
    finally:
        run.end()
    return report(found, run.outcomes)


def earlier_kills(results: Path) -> dict[Name, Outcome]:
    """What earlier runs have killed of today's modules; survivors are tried again, for there may be new tests."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    kept = ((module, name, Outcome(how)) for module, digest, name, how in lines if digest == source_digest(module))
    return {(module, name): how for module, name, how in kept if how is not Outcome.SURVIVED}


@cache
def source_digest(module: str) -> str:
    """Which module a result is about: what it does, whatever its comments say."""
    return hashlib.sha256(ast.dump(ast.parse(source_of(module).read_text())).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
