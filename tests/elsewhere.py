"""A child process that differs from this one in everything that must not change a bundle.

Owns these differences: user, folder, home, umask, locale, time zone, hash seed, processors and dates of files. Tests
use it to show that any work gives the same bytes there. It must never decide what is compared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
NOBODY = 65534
OLD = 1_000_000_000
"""The time of the last change of every file in the other place."""
PROGRAM = ("appliance", "bundles", "signing", "playbooks", "docs")
NO_USER = "needs root, to become another user"
# Sets the umask and the processors of its own process, then runs a module as `python -m` would.
CHILD = """
import os, runpy, sys
os.umask(int(sys.argv[1], 8))
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Elsewhere:
    """A folder with a copy of the program, and the way to start a process there.

    Args:
        folder: writable for the other user, with `program/`, `home/`, which is empty, and `work/`.
        user: arguments before a command that run it as the other user.
    """

    folder: Path
    user: tuple[str, ...]

    @property
    def work(self) -> Path:
        """The folder for the files that the process reads and writes."""
        return self.folder / "work"

    def run(self, module: str, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
        """Run a module as a program and return its standard output."""
        argv = [*self.user, sys.executable, "-c", CHILD, "0077", module, *map(str, arguments)]
        done = subprocess.run(
            argv,
            cwd=self.work,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    @property
    def env(self) -> dict[str, str]:
        """Nothing of the caller's environment."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": f"{self.folder / 'program'}:{TOP}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "4711",
            # With these, Python follows the locale: text is ASCII where the code does not name UTF-8.
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "LC_ALL": "C",
            "LANG": "tr_TR.ISO-8859-9",
            "TZ": "Pacific/Chatham",
            "SOURCE_DATE_EPOCH": "1",
            "CFLAGS": "-O1 -g",
        }

    def give(self, path: Path) -> None:
        """Let the other user own everything below a path, and set old dates."""
        for one in (path, *path.rglob("*")):
            if not one.is_symlink():
                os.utime(one, (OLD, OLD))
                if self.user:
                    os.chown(one, NOBODY, NOBODY)


@contextmanager
def elsewhere(*, as_another_user: bool = True) -> Iterator[Elsewhere]:
    """Another place, for the length of a block.

    Args:
        as_another_user: whether its processes belong to another user; the test is skipped where that is impossible.
    """
    user = another_user() if as_another_user else ()
    folder = Path(tempfile.mkdtemp(prefix="another-place-whose-name-is-much-longer-than-that-of-the-first-"))
    try:
        for name in PROGRAM:
            shutil.copytree(TOP / name, folder / "program" / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("LICENSE", "README.md", "pyproject.toml"):
            shutil.copy(TOP / name, folder / "program")
        for path in (folder / "home", folder / "work"):
            path.mkdir()
        place = Elsewhere(folder, user)
        place.give(folder)
        for path in folder.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        folder.chmod(0o755)
        yield place
    finally:
        # The folder of a finished bundle's blobs is read-only.
        for path in folder.rglob("blobs/sha256"):
            path.chmod(0o755)
        shutil.rmtree(folder)


@cache
def another_user() -> tuple[str, ...]:
    """Arguments that run a command as a user with no rights; skips the test where this is not possible."""
    if os.geteuid() == 0:
        ids = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        # This Python, or this checkout, may be readable by its owner only: then the right to read is kept.
        for rights in ("-all", "-all,+dac_read_search"):
            user = (*ids, f"--inh-caps={rights}", f"--ambient-caps={rights}", "--")
            check = [*user, sys.executable, "-c", "import appliance.cli.main, tests.toy"]
            if _ends_well(check):
                return user
    pytest.skip(NO_USER)


def _ends_well(argv: Sequence[str]) -> bool:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP)}
    return subprocess.run(argv, cwd="/", env=env, capture_output=True, timeout=60).returncode == 0
