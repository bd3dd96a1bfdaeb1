"""What the bills of a bundle are written from.

Owns the values that all bills share. It must never hold what the recipe hoped for: these are the stored files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.builder.assembly.inputs import Gathered
from appliance.builder.lock.lockfile import Lock, Locked
from appliance.builder.recipe.model import Recipe
from bundles.contents.model import File, Model
from bundles.gguf.header import GgufHeader
from signing.digest import Digest


@dataclass(frozen=True, slots=True)
class Facts:
    """What the bills are written from.

    Args:
        recipe: what was asked for.
        lock: what it was made from.
        gathered: where everything lies, and the runtime.
        files: everything that was stored so far, by path.
        models: as `contents.json` will tell them.
        headers: of the models, by path.
    """

    recipe: Recipe
    lock: Lock
    gathered: Gathered
    files: tuple[File, ...]
    models: tuple[Model, ...]
    headers: Mapping[str, GgufHeader]

    def of_kind(self, *kinds: str) -> tuple[File, ...]:
        """The stored files of some kinds."""
        return tuple(file for file in self.files if file.kind in kinds)

    def locked(self, digest: Digest) -> Locked | None:
        """What the lock says of a file; None where the build made it."""
        return next((entry for entry in self.lock.entries if entry.used.sha256 == digest), None)

    def licence_paths(self, folder: str) -> tuple[str, ...]:
        """The licence texts of one thing."""
        return tuple(file.path for file in self.files if file.path.startswith(f"licences/{folder}/"))
