"""What `appliance plan` uses of a machine that builds: the models of a recipe, and a runtime in the cache.

Recipe and cache belong to the person who runs the command, so their files are read without a signature.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import Locked, lock_path, read_lock
from appliance.builder.models.architectures import cached_architectures
from appliance.builder.models.model_file import check_model_file
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.locked_models import locked_architectures
from appliance.builder.runtime.built_runtimes import BUILD_FILE, Slot
from appliance.builder.sources import FileSource, parse_source
from appliance.builder.sources.file import find
from appliance.host.models.model_head import ModelHead, head_of_file
from bundles.gguf.memory import Workload
from signing.digest import Digest
from signing.errors import NotTrustedError, UsageError
from signing.strictjson import load_canonical


def read_recipe(path: Path, load: Callable[[int, int], Workload]) -> tuple[tuple[ModelHead, Workload], ...]:
    """Read the headers of a recipe's models.

    Args:
        path: of the recipe; its lock lies beside it, if there is one.
        load: makes a workload of a context and a number of slots.

    Raises:
        UsageError: the recipe is wrong, or a model's file is not on this machine, or no engine could serve it.
        NotTrustedError: a file that is no GGUF, or a template that is refused.
    """
    recipe = load_recipe(path)
    lock = read_lock(lock_path(path)) if lock_path(path).exists() else None
    cache = Cache(cache_root(os.environ))
    architectures = (locked_architectures(lock, cache) if lock else None) or cached_architectures(cache)
    models = []
    for model in recipe.models:
        entry = lock.gguf_of(model.name) if lock else None
        file = _model_file(model.source, path.parent, entry)
        if file is None:
            raise UsageError(
                "plan.no-model",
                f"model {model.name}",
                expected="its file on this machine",
                found="not in the cache",
                hint=f"fetch it first: appliance lock {shlex.quote(str(path))}",
            )
        check_model_file(model, file, architectures)
        models.append((head_of_file(file, model.name), load(model.context, recipe.serve.slots)))
    return tuple(models)


def _model_file(source: str | tuple[str, ...], folder: Path, entry: Locked | None) -> Path | None:
    # A produced model has other bytes than its source, so its own file counts only where nothing is done to it.
    is_unchanged = entry is None or entry.made is None
    local = parse_source(source) if isinstance(source, str) and is_unchanged else None
    if isinstance(local, FileSource):
        return find(local, folder)
    if entry is None:
        return None
    cache = Cache(cache_root(os.environ))
    return cache.path(entry.used.sha256) if cache.has(entry.used.sha256, entry.used.size) else None


def built_wheel() -> Path | None:
    """The newest wheel of the runtime in the cache that was built to its end; None where there is none."""
    cache = cache_root(os.environ) / "runtime"
    try:
        paths = sorted(cache.glob(f"*/{BUILD_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        keys = [load_canonical(path.read_bytes(), BUILD_FILE).get("key") for path in paths]
    except (OSError, NotTrustedError, AttributeError):
        return None
    found = (Slot(cache, Digest(key)).read_finished() for key in keys if isinstance(key, str))
    return next((built.path for built in found if built is not None), None)
