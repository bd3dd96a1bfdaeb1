"""What the figures are measured on: a model of 1 GiB whose every byte differs, and bundles of it.

Owns a folder that is made once for a whole run and removed with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from appliance.builder.chunking.bundle_writer import remove_bundle
from tests.appliance.big_build import TEMPLATE, layered
from tests.appliance.shipped import recipe_with
from tests.bench.figure import TOP, Taken, run
from tests.sim.gguf_models import write_model as write_gguf
from tests.toy import build_toy

RECIPE = TOP / "bundles" / "recipes" / "smollm2.yaml"
PROGRAM = Path(sys.executable).with_name("appliance")


def now() -> datetime:
    """The clock, which decides nothing here."""
    return datetime.now(timezone.utc)


def appliance(*words: str | Path) -> Taken:
    """Run one command of the program, as somebody who installed it would."""
    return run(PROGRAM, *words)


def write_model(path: Path, template: str = TEMPLATE, layers: int = 4) -> Path:
    """Write a GGUF of distinct weights that an engine loads: 232 MB for each layer, and 279 MB more."""
    write_gguf(path, layered(layers), seed=1, template=template)
    return path


class Material:
    """A folder with what the figures need, each thing made when it is first asked for.

    Args:
        folder: exists, empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def model(self) -> Path:
        """The model of 1 GiB."""
        return write_model(self.folder / "big.gguf")

    @cached_property
    def big(self) -> tuple[Path, Path]:
        """A workspace and a bundle of that model and little else."""
        workspace, bundle = build_toy(self.folder / "big", model=self.model)
        return workspace.path, bundle

    @contextmanager
    def huge(self) -> Iterator[tuple[Path, Path]]:
        """A workspace and a bundle of a model of 4 GiB; removed at the end, for the page cache holds it."""
        model = write_model(self.folder / "huge.gguf", layers=17)
        workspace, bundle = build_toy(self.folder / "huge", model=model)
        model.unlink()
        yield workspace.path, bundle
        remove_bundle(bundle)

    @cached_property
    def small(self) -> tuple[Path, Path]:
        """A workspace and a bundle of a few kilobytes."""
        workspace, bundle = build_toy(self.folder / "small")
        return workspace.path, bundle

    @cached_property
    def demo(self) -> tuple[Path, Path]:
        """A workspace and the bundle of the demo, built by the command."""
        workspace = self.folder / "workspace"
        appliance("init", workspace)
        appliance("build", RECIPE, "--workspace", workspace)
        return workspace, workspace / "dist" / "smollm2-1.0.0"

    @cached_property
    def big_recipe(self) -> Path:
        """The demo's recipe and lock with the model of 1 GiB in place of the demo's."""
        return recipe_with(self.model, self.folder / "recipes" / "big.yaml", "big")
