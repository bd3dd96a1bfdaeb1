"""A build judges its models again: a lock of an older version accepted every file."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.assembly.inputs import _check_models, _FetchContext
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked
from appliance.builder.recipe.reader import load_recipe
from bundles.progress import ignore
from signing.digest import Digest, sha256
from signing.errors import UsageError
from tests.appliance.web import write_recipe
from tests.sim.odd_models import REFUSED, servable


def judge(folder: Path, data: bytes, locked: Digest) -> None:
    path = folder / "tiny.gguf"
    path.write_bytes(data)
    entry = Locked("model", "tiny", "", path.name, len(data), locked, "Apache-2.0", "file:tiny.gguf")
    recipe = load_recipe(write_recipe(folder, "file:tiny.gguf"))
    context = _FetchContext(folder, Cache(folder / "cache"), ignore, None)
    _check_models(recipe, Lock(0, (), (entry,)), {entry: path}, context)


def test_locked_model_that_no_engine_could_serve_is_refused_before_the_runtime_is_compiled(tmp_path: Path) -> None:
    judge(tmp_path, servable(), sha256(servable()))
    adapter = REFUSED["an adapter"][0]
    with pytest.raises(UsageError, match="model.kind"):
        judge(tmp_path, adapter, sha256(adapter))


def test_file_that_is_not_the_locked_one_is_left_to_the_comparison_with_the_lock(tmp_path: Path) -> None:
    judge(tmp_path, REFUSED["an adapter"][0], sha256(b"another file"))
