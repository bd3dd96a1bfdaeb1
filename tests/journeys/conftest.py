"""What the journeys share: one finished demo, and the program as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = (sys.executable, "-m", "appliance.cli.main")
RECIPE = Path(__file__).resolve().parents[2] / "bundles" / "recipes" / "smollm2.yaml"


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


def appliance(*arguments: str | Path, timeout_s: float = 280, env: dict[str, str] | None = None) -> Finished:
    """Run the program in a child process, as a person would."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, modification time and size of every file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


@dataclass(frozen=True)
class Demo:
    """A demo that has run: its folder, its answer in JSON, and what it showed meanwhile."""

    folder: Path
    answer: dict[str, Any]
    shown: str

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def bundle(self) -> Path:
        return Path(self.answer["bundle"])

    @property
    def stick(self) -> Path:
        return self.folder / "stick"

    @property
    def host(self) -> Path:
        return self.folder / "host"

    @property
    def release(self) -> Path:
        return (self.host / "opt/appliance/current").resolve()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The very command of `make demo`, once, in a folder of its own."""
    folder = tmp_path_factory.mktemp("journey") / "demo"
    done = appliance("demo", "--folder", folder, "--json", timeout_s=1500)
    assert done.code == 0, done.err[-4000:]
    return Demo(folder, json.loads(done.out), done.err)


@pytest.fixture
def stick(demo: Demo, tmp_path: Path) -> Path:
    """A copy of the demo's stick that a test may damage: links to its blobs, so write to a fresh file."""
    copy = tmp_path / "stick"
    shutil.copytree(demo.stick, copy, copy_function=os.link)
    return copy


def flip(path: Path) -> None:
    """Replace a file by one with a flipped byte in the middle; other links to it stay as they were."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
