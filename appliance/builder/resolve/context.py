"""What every step of locking works with.

Owns the way from a recipe to the package index, the cache and the earlier lock. It must never decide what is locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked, Pin
from appliance.builder.lock.pinned_fetch import fetch, fetch_unpinned
from appliance.builder.recipe.recipe import Recipe
from appliance.builder.sources.download import Remote
from appliance.builder.sources.pypi import Index, index_url, open_index
from bundles.progress import OnProgress


@dataclass(frozen=True, slots=True)
class LockContext:
    """The inputs of one run of `appliance lock`.

    Args:
        recipe: as read.
        recipe_folder: where relative `file:` sources start.
        cache: gets every file.
        kept: the earlier lock, whose lines stay while the recipe still asks for them; None looks everything up again.
        env: the environment, for the package index and the hub.
        on_progress: called with bytes and steps done.
    """

    recipe: Recipe
    recipe_folder: Path
    cache: Cache
    kept: Lock | None
    env: Mapping[str, str]
    on_progress: OnProgress

    @property
    def index(self) -> Index:
        """The package index of this machine."""
        return open_index(index_url(self.env))

    def find_kept(self, kind: str, name: str) -> Locked | None:
        """A line of the earlier lock."""
        return self.kept.find(kind, name) if self.kept else None

    def download(self, remote: Remote) -> Pin:
        """Bring a file into the cache, and pin its bytes.

        Raises:
            ApplianceError, DamagedError: as `lock.pinned_fetch.fetch_unpinned`.
        """
        return fetch_unpinned(remote, self.cache, self.on_progress)

    def fetch(self, locked: Locked) -> Path:
        """The verified file of a line of the lock.

        Raises:
            ApplianceError, DamagedError, UsageError: as `lock.pinned_fetch.fetch`.
        """
        return fetch(locked, self.cache, self.on_progress, recipe_folder=self.recipe_folder, env=self.env)
