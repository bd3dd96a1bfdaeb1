"""What the shipped recipe gives on this machine, as far as its cache holds it: the real runtime and the real model."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import RUNTIME, Locked, lock_path, read_lock
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.runtime.build_job import find_runtime
from appliance.builder.runtime.build_types import BuiltRuntime, RuntimeSpec, ToolWheels
from appliance.resources import recipes_path

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
