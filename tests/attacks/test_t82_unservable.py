"""T82: a file that no engine could serve, named as a model: a part, an adapter, a page of the web, an unknown model."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked
from appliance.builder.models.model_file import ModelFile
from appliance.builder.recipe.reader import load_recipe
from appliance.builder.resolve.locked_models import check_locked_models
from bundles.gguf.header import GgufHeader
from signing.digest import sha256
from signing.errors import ApplianceError
from tests.appliance.web import sdist, write_recipe
from tests.attacks.harness import guard_off, row
from tests.sim.odd_models import EMBEDDER, REFUSED, RERANKER, servable

ROW = row(82)
ODD = {name: data for name, (data, _) in REFUSED.items()}


def judge(folder: Path, data: bytes) -> dict[str, ModelFile]:
    """What `lock` does after it has pinned a model, with the runtime's sources in the cache."""
    (folder / "tiny.gguf").write_bytes(data)
    source, cache = sdist("llama_cpp_python", "0.3.36"), Cache(folder / "cache")
    digest = sha256(source)
    cache.path(digest).parent.mkdir(parents=True, exist_ok=True)
    cache.path(digest).write_bytes(source)
    entries = (
        Locked("model", "tiny", "", "tiny.gguf", len(data), sha256(data), "Apache-2.0", "file:tiny.gguf"),
        Locked("sdist", "llama-cpp-python", "0.3.36", "sdist.tar.gz", len(source), digest, "MIT"),
    )
    recipe = load_recipe(write_recipe(folder, "file:tiny.gguf"))
    return check_locked_models(recipe, Lock(0, (), entries), cache, folder)


def test_unattacked_models_are_locked(tmp_path: Path) -> None:
    assert judge(tmp_path, servable())["tiny"].task == "chat"
    assert judge(tmp_path, EMBEDDER)["tiny"].task == "embed"
    assert judge(tmp_path, RERANKER)["tiny"].task == "rerank"


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_attacked_by_a_file_of_another_kind(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ApplianceError) as caught:
        judge(tmp_path, data)
    assert caught.value.exit_code in ROW.exit
    assert caught.value.code in ("model.kind", "gguf.refused")
    assert "tiny" in caught.value.subject


def test_unguarded_what_is_a_gguf_at_all_is_locked(tmp_path: Path) -> None:
    def accept(_header: GgufHeader, _head: bytes, _subject: str, _known: object) -> str:
        return "chat"

    with guard_off(ROW.guard, accept):
        for name in ("an adapter", "a vocabulary", "a token twice", "an unknown architecture"):
            assert judge(tmp_path, ODD[name])["tiny"].task == "chat"
