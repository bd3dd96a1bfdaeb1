"""Real builds of generated models, in processes whose memory is measured: `python -m tests.appliance.big_build` (soak).

Owns the recipes of such models and how a command's peak is taken. Run as a program, it builds, verifies and writes to a
stick a model of 8 GiB and one with a tensor of more than 4 GiB; it needs 25 GiB below TMPDIR, and minutes.

Rules:
- weights are noise with a seed: a file of zeros would collapse into one chunk and prove nothing;
- a process is measured whole, with all that it imports; its parent is small, since a child begins with the peak of
  the process that it was forked from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.lock.lockfile import lock_path
from bundles.bundle import Bundle, open_bundle
from signing.floors import Floors
from tests.appliance.shipped import RECIPE
from tests.journeys.conftest import PROGRAM
from tests.sim.gguf_models import F16, Q8_0, Shape, write_model
from tests.toy import NOW

MOST_BYTES = 250_000_000
"""The most memory that a build may take, however large its model (the first figure of its design)."""
MEASURED = """
import json, os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
found = {"code": os.waitstatus_to_exitcode(status), "peak": used.ru_maxrss << 10, "cpu": used.ru_utime + used.ru_stime}
open(sys.argv[1], "w").write(json.dumps(found))
"""
TRIED = """
import os, sys
from pathlib import Path
from appliance.builder.assembly.assembler import prepare
from appliance.builder.cache.content_store import Cache, cache_root
from appliance.keys.workspace import open_workspace
from bundles.progress import ignore
prepare(Path(sys.argv[1]), open_workspace(Path(sys.argv[2])), Cache(cache_root(os.environ)), ignore)
"""
"""Everything of a build up to the trial of its models: the memory of their engine is not that of a build."""
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def layered(layers: int) -> Shape:
    """A model of 232 MB for each layer, and 279 MB more."""
    return Shape("llama", layers, 4096, 32, 8, 128, 14336, 32000, kind=Q8_0)


ONE_GIB, EIGHT_GIB = layered(4), layered(37)
ONE_BIG_TENSOR = Shape("gemma3", 1, 8192, 8, 2, 64, 1024, 330_000, kind=F16)
"""5 GiB of embeddings in one tensor."""


@dataclass(frozen=True)
class Measured:
    """How a command ended, its peak of memory in bytes, and its seconds of processor time."""

    code: int
    out: str
    err: str
    peak_bytes: int
    cpu_s: float


@dataclass(frozen=True)
class BigModel:
    """A folder with a generated model, its recipe and lock, and a workspace."""

    folder: Path
    size_bytes: int

    @property
    def recipe(self) -> Path:
        return self.folder / "big.yaml"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def bundle(self) -> Path:
        return self.workspace / "dist" / "big-1.0.0"

    @property
    def root(self) -> Path:
        return self.workspace / "trust" / "root.json"

    def build(self, *more: str) -> Measured:
        """`appliance build` of it."""
        return measured("build", self.recipe, "--workspace", self.workspace, *more)

    def opened(self) -> Bundle:
        """The bundle that was built, as hosts see it."""
        return open_bundle(self.bundle, self.root.read_bytes(), Floors(), NOW).value


@contextmanager
def big_model(shape: Shape, seed: int = 1) -> Iterator[BigModel]:
    """Generate a model, lock its recipe, make a workspace; all of it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="big-"))
    try:
        size = write_model(folder / "big.gguf", shape, seed=seed, template=TEMPLATE)
        write_recipe(folder, "file:big.gguf")
        model = BigModel(folder, size)
        for words in (("lock", model.recipe), ("init", model.workspace)):
            done = measured(*words)
            assert done.code == 0, done.err
        tried = [sys.executable, "-c", TRIED, str(model.recipe), str(model.workspace)]
        subprocess.run(tried, check=True, stdin=subprocess.DEVNULL)
        yield model
    finally:
        for path in folder.rglob("blobs/sha256"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def write_recipe(folder: Path, source: str, name: str = "big") -> Path:
    """A recipe of another model beside the shipped recipe's lock, which has all the rest."""
    text = RECIPE.read_text("utf-8")
    before, _, rest = text.partition("    source: ")
    text = f"{before}    source: {source}\n{rest.partition(chr(10))[2]}".replace("smollm2-135m", "big")
    recipe = folder / f"{name}.yaml"
    recipe.write_text(text.replace("name: smollm2", f"name: {name}"), "utf-8")
    shutil.copy(lock_path(RECIPE), lock_path(recipe))
    return recipe


def measured(*arguments: str | Path) -> Measured:
    """Run the program in a process of its own."""
    descriptor, told = tempfile.mkstemp(prefix="measured-")
    os.close(descriptor)
    try:
        argv = [sys.executable, "-S", "-c", MEASURED, told, *PROGRAM, *map(str, arguments)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        found = json.loads(Path(told).read_text())
    finally:
        Path(told).unlink()
    return Measured(found["code"], done.stdout, done.stderr, found["peak"], found["cpu"])


def whole_way(shape: Shape) -> bool:
    """Build, check, verify and carry a model; tells each step's memory and seconds of processor."""
    with big_model(shape) as model:
        stick = model.folder / "stick"
        stick.mkdir()
        steps = {
            "build": ("build", model.recipe, "--workspace", model.workspace),
            "verify": ("verify", model.bundle, "--trust", model.root),
            "build --check": ("build", model.recipe, "--workspace", model.workspace, "--check"),
            "stick write": ("stick", "write", model.bundle, stick, "--trust", model.root),
            "verify the stick": ("verify", stick, "--trust", model.root),
        }
        for name, words in steps.items():
            done = measured(*words)
            size, peak = model.size_bytes / (1 << 30), done.peak_bytes / 1e6
            print(f"{size:.2f} GiB  {name:16}  code {done.code}  peak {peak:.0f} MB  {done.cpu_s:.0f} s", flush=True)
            if done.code or (name.startswith("build") and done.peak_bytes > MOST_BYTES):
                print(done.err[-2000:])
                return False
        [file] = model.opened().contents.of_kind("model")
        return len({chunk.sha256 for chunk in file.chunks}) == len(file.chunks)


if __name__ == "__main__":
    raise SystemExit(0 if all(whole_way(shape) for shape in (ONE_BIG_TENSOR, EIGHT_GIB)) else 1)
