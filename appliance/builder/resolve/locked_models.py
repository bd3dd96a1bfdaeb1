"""The models that a lock pins, judged before anything is built of them.

Owns where the file of a locked model lies. The judgement is that of `appliance.builder.models.model_file`. It must
never fetch: a model that is not on this disk is judged by the build that fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import RUNTIME, Lock
from appliance.builder.lock.pinned_fetch import local_path
from appliance.builder.models.architectures import runtime_architectures
from appliance.builder.models.model_file import ModelFile, check_model_file
from appliance.builder.recipe.recipe import Recipe, RecipeModel
from signing.errors import NotTrustedError, UsageError


def check_locked_models(recipe: Recipe, lock: Lock, cache: Cache, recipe_folder: Path) -> dict[str, ModelFile]:
    """Judge every model of a recipe whose GGUF is on this disk.

    Args:
        recipe: as read.
        lock: of that recipe.
        cache: of downloads.
        recipe_folder: relative `file:` sources start there.

    Returns:
        What was found of each model, by its name.

    Raises:
        NotTrustedError, UsageError: of the first model that no engine could serve; it carries those of the others.
    """
    found: dict[str, ModelFile] = {}
    errors: list[NotTrustedError | UsageError] = []
    architectures = locked_architectures(lock, cache)
    for model, path, parts in _files(recipe, lock, cache, recipe_folder):
        try:
            found[model.name] = check_model_file(model, path, architectures, parts)
        except (NotTrustedError, UsageError) as error:
            errors.append(error)
    if errors:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    return found


def locked_architectures(lock: Lock, cache: Cache) -> frozenset[str] | None:
    """The architectures that the locked runtime knows; None where its sdist is not in the cache."""
    sdist = lock.find("sdist", RUNTIME)
    if sdist is None or not cache.has(sdist.sha256, sdist.size):
        return None
    return runtime_architectures(cache.path(sdist.sha256), sdist.sha256, cache)


def _files(
    recipe: Recipe, lock: Lock, cache: Cache, folder: Path
) -> Iterator[tuple[RecipeModel, Path, tuple[Path, ...]]]:
    for model in recipe.models:
        entry = lock.gguf_of(model.name)
        if entry is None or (model.convert and entry.kind == "model"):
            continue
        parts: tuple[Path, ...] = ()
        if model.parts and entry.made:
            found = [local_path(part, cache, folder) for part in lock.parts_of(model.name)]
            parts = tuple(one for one in found if one is not None)
            path = parts[0] if parts and len(parts) == len(found) else None
        elif model.parts:
            path = cache.path(entry.used.sha256) if cache.has(entry.used.sha256, entry.used.size) else None
        else:
            path = local_path(entry, cache, folder)
        if path is not None:
            yield model, path, parts
