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

from appliance.builder.lock.lockfile import lock_path

PROGRAM = (sys.executable, "-m", "appliance.cli.main")
RECIPE = Path(__file__).resolve().parents[2] / "bundles" / "recipes" / "smollm2.yaml"


_ONE = 'targets: [{os: debian-12, arch: x86_64, python: ["3.11"]}]'
_TWO = (
    'targets: [{os: debian-12, arch: x86_64, python: ["3.11"], packages: [python3]}, '
    '{os: debian-13, arch: x86_64, python: ["3.13"], packages: [python3]}]'
)


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


@dataclass(frozen=True)
class TwoSystems:
    """A bundle for two releases of Debian that brings python3 for both, and what it is trusted by.

    Args:
        bundle: its folder.
        root: the root file.
        manifest: the bundle's digest.
        sheet: for the operators of bare hosts.
    """

    bundle: Path
    root: Path
    manifest: str
    sheet: str


@pytest.fixture(scope="session")
def two_systems(tmp_path_factory: pytest.TempPathFactory) -> TwoSystems:
    """The demo's recipe for Debian 12 and 13, locked and built once."""
    folder = tmp_path_factory.mktemp("two")
    recipe, workspace = folder / "two-pythons.yaml", folder / "workspace"
    text = RECIPE.read_text().replace("name: smollm2\n", "name: two-pythons\n").replace(_ONE, _TWO)
    assert _TWO in text
    recipe.write_text(text)
    # What the demo's lock pins stays; the wheels of the other Python and the packages are looked up.
    shutil.copy(lock_path(RECIPE), lock_path(recipe))
    locked = appliance("lock", recipe)
    assert locked.code == 0, locked.err
    assert appliance("init", workspace).code == 0
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    bundle = workspace / "dist/two-pythons-1.0.0"
    verified = json.loads(appliance("verify", bundle, "--workspace", workspace, "--json").out)
    sheet = appliance("trust", "sheet", "--workspace", workspace).out
    return TwoSystems(bundle, workspace / "trust/root.json", verified["manifest"], sheet)


def flip(path: Path) -> None:
    """Replace a file by one with a flipped byte in the middle; other links to it stay as they were."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
