"""Mutation testing is tested itself: it makes what it says, kills what must die, and lets live what changes nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import __main__
from tests.mutants.__main__ import MODULES, own_tests, wider_tests
from tests.mutants.operators import Mutant, mutants
from tests.mutants.survivors import listed
from tests.mutants.trial import TOP, Outcome, source_of

# Runs one changed module against the tests that are named, and prints how it ended. Its own process, because nothing of
# this project may have been imported before.
TRIAL = """
import ast, sys, time
from tests.mutants.trial import Limits, source_of, start
module, old, new, cpu, *tests = sys.argv[1:]
source = source_of(module).read_text()
assert source.count(old) == 1, source.count(old)
trial = start(module, ast.parse(source.replace(old, new)), ["--noconftest", *tests], Limits(int(cpu), 120))
while (outcome := trial.poll()) is None:
    time.sleep(0.02)
assert not trial.folder.exists()
print(outcome.value)
"""
FLOORS = "tests/signing/test_floors.py"


def tried(module: str, old: str, new: str, *tests: str, cpu: int = 60) -> str:
    argv = [sys.executable, "-c", TRIAL, module, old, new, str(cpu), *tests]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_fault_that_lets_an_old_version_in_is_killed() -> None:
    before = source_of("floors").read_bytes()
    assert tried("floors", "if version < floor:", "if version < floor - 1:", FLOORS) == "killed"
    assert source_of("floors").read_bytes() == before


@pytest.mark.ci
def test_change_that_changes_nothing_survives() -> None:
    assert tried("floors", "if version < floor:", "if not version >= floor:", FLOORS) == "survived"


@pytest.mark.ci
def test_module_that_does_not_import_is_killed() -> None:
    assert tried("floors", "MAX_STEP = 10_000", "MAX_STEP = ten thousand".replace(" ", "_"), FLOORS) == "killed"


@pytest.mark.ci
def test_loop_without_an_end_is_stopped() -> None:
    assert (
        tried("floors", "if version < floor:", "while True: pass\n        if version < floor:", FLOORS, cpu=2)
        == "stopped"
    )


@pytest.mark.ci
def test_tests_that_do_not_run_are_no_kill() -> None:
    argv = [sys.executable, "-c", TRIAL, "floors", "MAX_STEP = 10_000", "MAX_STEP = 9", "60", "tests/no_such_test.py"]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=300)
    assert "the tests were not run" in done.stderr


def changes(source: str) -> set[str]:
    return {mutant.name.partition(": ")[2] for mutant in mutants(source, "m")}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b): return a < b", {"return a < b → return None", "a < b → a <= b", "a < b → a >= b"}),
        ("def f(a, b): return a is not b", {"return a is not b → return None", "a is not b → a is b"}),
        (
            "def f(a, b):\n if a and not b: raise E(b)",
            {
                "if a and (not b): → if True:",
                "if a and (not b): → if False:",
                "a and (not b) → a or not b",
                "a and (not b) → a",
                "a and (not b) → not b",
                "not b → b",
                "raise E(b) → pass",
            },
        ),
        ("X = 2 + 1", {"2 + 1 → 2 - 1", "2 → 3", "2 → 1", "1 → 2", "1 → 0"}),
        ("X = [True, 'a', b'b', None]", {"True → False", "'a' → 'ax'", "b'b' → b'bx'"}),
        ("X = a[1:]", {"1: → :", "1 → 2", "1 → 0"}),
        ("def f():\n for x in y: continue", {"for x in y: → for x in ():", "continue → break"}),
        (
            "def f():\n try: g()\n except (A, B): x = min(1, z)",
            {
                "g() → pass",
                "except (A, B): → except (B,):",
                "except (A, B): → except (A,):",
                "x = min(1, z) → pass",
                "min → max",
                "1 → 2",
                "1 → 0",
            },
        ),
        ("def f(): raise DamagedError('c', s, hint='h')", {"'c' → 'cx'", "DamagedError → NotTrustedError"}),
        ("def f(a: 'x' = 1) -> 'y':\n 'doc'", {"1 → 2", "1 → 0"}),
        ("@dataclass(frozen=True)\nclass C:\n 'doc'\n a: int = 1\n 'doc'", {"1 → 2", "1 → 0"}),
        ("from x import y\nT = TypeVar('T')", set()),
        ("def f(): return _refuse(s + 'a', 'people', 'read')", {"s + 'a' → s - 'a'", "'a' → 'ax'"}),
        ("X = [a for a in b if a]", {"for a in b if a → for a in b"}),
    ],
)
def test_every_kind_of_fault_is_made(source: str, expected: set[str]) -> None:
    found = changes(source)
    assert found >= expected
    assert {name for name in found - expected if not name.endswith(("→ pass", "→ return None"))} == set()


def test_names_are_unique_hold_no_line_and_every_mutant_compiles() -> None:
    source = source_of("floors").read_text()
    found = list(mutants(source, "floors"))
    assert len({mutant.name for mutant in found}) == len(found) > 30
    assert {mutant.name for mutant in mutants("\n\n" + source, "floors")} == {mutant.name for mutant in found}
    original = ast.dump(ast.parse(source))
    for mutant in found:
        compile(mutant.tree, "x", "exec")
        assert ast.dump(mutant.tree) != original


@pytest.fixture
def hundred(monkeypatch: pytest.MonkeyPatch) -> list[Mutant]:
    """A hundred mutants, of which the first is listed as a survivor."""
    found = list(mutants("X = [" + ", ".join(f"'{number}'" for number in range(100)) + "]", "m"))
    monkeypatch.setattr(__main__, "listed", lambda: {("m", found[0].name): "a reason"})
    return found


def outcomes_of(found: list[Mutant], alive: range) -> dict[tuple[str, str], Outcome]:
    return {(one.module, one.name): Outcome.SURVIVED if at in alive else Outcome.KILLED for at, one in enumerate(found)}


@pytest.mark.parametrize(
    ("alive", "code", "said"),
    [
        (range(1), 0, "100 mutants, 99 killed (99.0%), of these 0 stopped; 1 survived, 1 of them listed"),
        (range(2), 1, "survived, and is not listed: signing/m.py:1 m: '1' → '1x'"),
        (range(0), 1, "listed as a survivor, and was killed: m m: '0' → '0x'"),
    ],
)
def test_run_fails_where_a_survivor_is_not_listed_or_a_listed_one_was_killed(
    hundred: list[Mutant], capsys: pytest.CaptureFixture[str], alive: range, code: int, said: str
) -> None:
    assert __main__.report(hundred, outcomes_of(hundred, alive)) == code
    assert said in capsys.readouterr().out


def test_run_fails_where_less_is_killed_than_promised_though_all_is_listed(
    hundred: list[Mutant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "listed", lambda: {("m", one.name): "a reason" for one in hundred[:6]})
    assert __main__.report(hundred, outcomes_of(hundred, range(6))) == 1
    monkeypatch.setattr(__main__, "listed", lambda: {("m", one.name): "a reason" for one in hundred[:5]})
    assert __main__.report(hundred, outcomes_of(hundred, range(5))) == 0


def test_a_run_goes_on_with_what_was_killed_of_the_same_text(tmp_path: Path) -> None:
    digest, other = __main__.source_digest("floors"), "0" * 16
    lines = [
        ["floors", digest, "a", "killed"],
        ["floors", digest, "b", "survived"],
        ["floors", other, "c", "killed"],
        ["floors", digest, "d", "stopped"],
    ]
    results = tmp_path / "results"
    results.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert set(__main__.earlier_kills(results)) == {("floors", "a"), ("floors", "d")}
    assert __main__.earlier_kills(tmp_path / "none") == {}


def test_every_listed_survivor_is_a_mutant_of_today() -> None:
    names = {(module, one.name) for module in MODULES for one in mutants(source_of(module).read_text(), module)}
    assert set(listed()) - names == set()


def test_every_module_of_the_kernel_has_tests_of_its_own() -> None:
    assert [module for module in MODULES if len(own_tests(module)) < 2] == []
    assert all(Path(TOP, name).exists() for name in wider_tests())
