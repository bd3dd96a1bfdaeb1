"""The trial with the real engine: what it refuses is refused with its words, and what it serves passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.rootfs import DEBIAN_12, FOLDER
from appliance.builder.proof.model_trial import TrialModel, try_models
from appliance.builder.recipe.reader import load_recipe
from signing.digest import sha256
from signing.errors import ApplianceError
from tests.appliance.shipped import RECIPE, shipped_runtime
from tests.bed.fixtures import tree_folder
from tests.sim.gguf_models import CAUSAL, Shape, write_embedder, write_model
from tests.sim.odd_models import REFUSED

pytestmark = pytest.mark.ci
SHAPE = Shape("llama", 1, 64, 2, 2, 32, 64, 400)
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def tried(folder: Path, path: Path) -> int:
    cache = Cache(folder / "cache")
    (cache.folder(FOLDER) / DEBIAN_12.key()).symlink_to(tree_folder(DEBIAN_12))
    model = TrialModel("m", "models/m/m.gguf", path, sha256(path.read_bytes()), 64)
    return try_models(load_recipe(RECIPE), [model], shipped_runtime(), [], cache)


def test_chat_model_embedder_and_reranker_that_serve_pass(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_model(path, SHAPE, seed=1, template=TEMPLATE)
    assert tried(tmp_path / "chat", path) == 1
    write_embedder(path)
    assert tried(tmp_path / "embed", path) == 1
    write_embedder(path, is_ranker=True)
    assert tried(tmp_path / "rank", path) == 1
    write_embedder(path, CAUSAL, is_ranker=True)
    assert tried(tmp_path / "causal", path) == 1


@pytest.mark.parametrize(
    ("old", "new", "code", "reason"),
    [
        (b"tokenizer.ggml.model", b"tokenizer.ggml.medel", "model.not-loaded", "key not found in model: tokenizer"),
        (
            b"blk.0.attn_norm.weight",
            b"blk.0.attn_nerm.weight",
            "model.not-loaded",
            "'blk.0.attn_norm.weight' not found",
        ),
        ("▁21".encode(), "▁22".encode(), "model.not-loaded", "GGML_ASSERT(id_to_token.size() == token_to_id.size()"),
        (b"{{ message.content }}", b"{{ message.content()}", "model.not-loaded", ""),
    ],
)
def test_model_that_does_not_serve_is_refused_in_the_engines_words(
    tmp_path: Path, old: bytes, new: bytes, code: str, reason: str
) -> None:
    path = tmp_path / "m.gguf"
    write_model(path, SHAPE, seed=1, template=TEMPLATE)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ApplianceError) as caught:
        tried(tmp_path, path)
    assert (caught.value.code, caught.value.exit_code) == (code, 1)
    assert reason in caught.value.found


# Its engine does not look at the type, and serves it: only the header's judge refuses it.
SERVED = {"a type that nobody knows"}


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - SERVED))
def test_file_that_nobody_could_serve_does_not_pass_even_where_no_header_was_judged(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(REFUSED[name][0])
    with pytest.raises(ApplianceError) as caught:
        tried(tmp_path, path)
    assert caught.value.code in ("gguf.refused", "model.not-loaded", "model.no-answer")
    assert caught.value.found


@pytest.mark.parametrize("is_ranker", [False, True])
def test_model_whose_numbers_are_all_zero_is_refused(tmp_path: Path, is_ranker: bool) -> None:
    write_embedder(tmp_path / "m.gguf", is_dumb=True, is_ranker=is_ranker)
    with pytest.raises(ApplianceError, match=r"model\.no-answer"):
        tried(tmp_path, tmp_path / "m.gguf")
