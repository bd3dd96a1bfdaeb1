"""What the bills of a bundle are written from: the gathered sources and the stored files.

Owns the values that all bills share. It must never hold what the recipe only asks for: these are the stored files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.chunking.chunker import Source
from appliance.builder.lock.lockfile import Lock, Locked
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.runtime.build_types import BuiltRuntime
from bundles.contents.contents import File, Model
from bundles.contents.lineage import Lineage
from bundles.gguf.header import GgufHeader
from signing.digest import Digest


@dataclass(frozen=True, slots=True)
class GatheredModel:
    """A model of the recipe.

    Args:
        name: in the recipe.
        source: its file; the path is the one in the bundle.
        lineage: the pinned source, and what was done to it.
    """

    name: str
    source: Source
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that goes into a bundle, before it is cut into chunks.

    Args:
        sources: every file, by its path in the bundle.
        models: in the recipe's order.
        runtime: built from the locked sdist.
        wheels: those for the host, the runtime's among them.
        cuda: the backend for graphics processors; None where the recipe names none.
    """

    sources: tuple[Source, ...]
    models: tuple[GatheredModel, ...]
    runtime: BuiltRuntime
    wheels: tuple[Path, ...]
    cuda: BuiltRuntime | None = None


@dataclass(frozen=True, slots=True)
class BillFacts:
    """What the bills are written from.

    Args:
        recipe: as read.
        lock: that covers the recipe.
        gathered: where every file lies, and the runtime.
        files: everything that was stored so far, by path.
        models: as `contents.json` lists them.
        headers: of the models, by path.
    """

    recipe: Recipe
    lock: Lock
    gathered: Gathered
    files: tuple[File, ...]
    models: tuple[Model, ...]
    headers: Mapping[str, GgufHeader]

    def locked(self, digest: Digest) -> Locked | None:
        """The entry of the lock for a file; None where the build made the file."""
        return next((entry for entry in self.lock.entries if entry.used.sha256 == digest), None)

    def licence_paths(self, folder: str) -> tuple[str, ...]:
        """The paths of the licence texts below `licences/FOLDER/`."""
        return tuple(file.path for file in self.files if file.path.startswith(f"licences/{folder}/"))
