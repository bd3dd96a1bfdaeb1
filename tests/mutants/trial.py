"""One mutant on trial: the tests run in a child process which sees the changed module in place of the one on disk.

Owns the child. It must never leave a changed file anywhere: the fault lives in the child's memory, and ends with it.

Rules:
- the child is forked before anything of this project was imported, so that all of it is imported against the fault;
- failed tests, a module that does not import, and a child that had to be stopped are kills; no tests at all is our bug;
- what a child may use is limited: a fault may loop for ever, or ask for all memory;
- hypothesis draws the same examples every time, so that a survivor of today is one tomorrow.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).resolve().parents[2]
OURS = ("appliance", "bundles", "signing", "tests")
MEMORY_BYTES = 4 << 30
# What our tests do not need, and what would take longest to start.
PYTEST = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:xdist", "--timeout=0"]
FAILED, BROKEN = 1, 2  # what pytest ends with


class Outcome(Enum):
    """How a trial ended."""

    SURVIVED = "survived"
    KILLED = "killed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Limits:
    """What one child may use, and what is known of its tests.

    Args:
        cpu_s: seconds of processor time.
        wall_s: seconds of waiting.
        durations: how long each test took when all passed; written by the first run that passes.
    """

    cpu_s: int
    wall_s: int
    durations: Path | None = None


@dataclass
class Trial:
    """A child that is running tests.

    Args:
        pid: of the child, which leads a process group.
        folder: where its tests write; removed when it ends.
        deadline: when it is stopped, by the monotonic clock.
    """

    pid: int
    folder: Path
    deadline: float

    def poll(self) -> Outcome | None:
        """How it ended, or None while it runs; one that runs too long is stopped."""
        if time.monotonic() > self.deadline:
            os.killpg(self.pid, signal.SIGKILL)
        # Only a look: the group's number is not given away before its last processes are ended.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        os.killpg(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.WIFSIGNALED(status):
            return Outcome.STOPPED
        code = os.WEXITSTATUS(status)
        if code not in (0, FAILED, BROKEN):
            raise RuntimeError(f"pytest ended with {code}: the tests were not run")
        return Outcome.KILLED if code else Outcome.SURVIVED


def start(module: str, tree: ast.Module, tests: Sequence[str], limits: Limits) -> Trial:
    """Fork a child that runs tests with a module of `signing/` replaced.

    Args:
        module: its name without the package.
        tree: what is imported in its place.
        tests: what pytest is given, in this order; it stops at the first failure.
        limits: what the child may use.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Trial(pid, folder, time.monotonic() + limits.wall_s)
    code = 70
    try:
        os.setpgid(0, 0)
        code = _run(module, tree, tests, folder, limits)
    finally:
        os._exit(code)


def _run(module: str, tree: ast.Module, tests: Sequence[str], folder: Path, limits: Limits) -> int:
    from hypothesis import Phase, settings

    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Who finds the smallest example of a failure, looks for what nobody reads here.
    settings.register_profile("mutants", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")
    sys.meta_path.insert(0, _Replaced(f"signing.{module}", tree))
    os.chdir(TOP)
    return int(
        pytest.main(
            [*PYTEST, f"--basetemp={folder / 'tests'}", *tests],
            plugins=[QuickFirst(limits.durations)] if limits.durations else [],
        )
    )


class QuickFirst:
    """Runs the tests that take least first, and writes down how long each takes: a pytest plugin."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        self.seen: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seen[report.nodeid] = self.seen.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == 0 and self.seen.keys() - self.known.keys():
            self.file.write_text(json.dumps({**self.known, **self.seen}))


class _Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, and gives it another body."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, source_of(name.rpartition(".")[2]), loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(module.__file__), "exec"), vars(module))


def source_of(module: str) -> Path:
    """The file of a module of `signing/`."""
    return TOP / "signing" / f"{module}.py"


def prepare(tests: Sequence[str]) -> None:
    """Import what the tests import of other people's, so that no child has to.

    Raises:
        RuntimeError: something of this project would be imported with it.
    """
    for name in sorted(_imported_by(tests)):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # what a test had put there, or a module that is made only by another
    ours = [name for name in sys.modules if name.partition(".")[0] in OURS[:3]]
    if ours:
        raise RuntimeError(f"imported before the fork: {ours}")


def _imported_by(tests: Sequence[str]) -> set[str]:
    """Names of the modules that a run of the tests imports, without ours; found in a child."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(out)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.chdir(TOP)
            pytest.main([*PYTEST, "--collect-only", *tests])
            names = {name for name in sys.modules if name.partition(".")[0] not in (*OURS, "__main__", "conftest")}
            with os.fdopen(into, "w") as pipe:
                pipe.write("\n".join(names))
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        names = set(pipe.read().split())
    os.waitpid(pid, 0)
    return names
