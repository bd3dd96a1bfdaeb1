"""A model that sorts documents goes the whole way: locked, built, on a stick, installed below a prefix, and served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.lock.lockfile import lock_path, read_lock, write_lock
from appliance.host.engine.ranking_check import DEFAULT
from bundles.bundle import open_bundle
from bundles.contents.contents import Contents
from signing.floors import Floors
from tests.appliance.shipped import recipe_with
from tests.journeys.conftest import appliance
from tests.journeys.test_08_recipes import post, serving
from tests.sim.gguf_models import EMBEDDER, write_embedder
from tests.toy import NOW

pytestmark = [pytest.mark.ci, pytest.mark.timeout(300)]
NAME = "ranks-135m"


def run(*arguments: str | Path) -> str:
    done = appliance(*arguments)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the bundle was built, from a lock that this test has made of the model's file."""
    folder = tmp_path_factory.mktemp("ranks")
    write_embedder(folder / "m.gguf", is_ranker=True)
    recipe = recipe_with(folder / "m.gguf", folder / "recipes/ranks.yaml", "ranks")
    recipe.write_text(recipe.read_text().replace("context: 8192", f"context: {EMBEDDER.context}"))
    lock = read_lock(lock_path(recipe))
    write_lock(lock_path(recipe), replace(lock, entries=tuple(one for one in lock.entries if one.kind != "model")))
    assert f"+ model {NAME}" in run("lock", recipe)
    run("init", folder / "workspace")
    run("build", recipe, "--workspace", folder / "workspace")
    return folder / "workspace"


@pytest.fixture(scope="module")
def host(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host on which the bundle was installed from a stick."""
    folder = tmp_path_factory.mktemp("host")
    run("stick", "write", workspace / "dist/ranks-1.0.0", folder / "stick", "--workspace", workspace)
    shown = json.loads(run("trust", "show", "--workspace", workspace, "--json"))
    fingerprint, root = shown["roles"]["root"]["fingerprints"][0], workspace / "trust/root.json"
    run("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", folder / "host")
    done = json.loads(run("install", folder / "stick", "--prefix", folder / "host", "--yes", "--json"))
    notes = {step["step"]: step["note"] for step in done["steps"]}
    assert notes["candidate"] == "2 documents, the same scores in both orders"
    return folder / "host"


def contents(workspace: Path) -> Contents:
    root = (workspace / "trust/root.json").read_bytes()
    return open_bundle(workspace / "dist/ranks-1.0.0", root, Floors(), NOW).value.contents


def test_bundle_states_the_task_and_so_is_format_2(workspace: Path) -> None:
    found = contents(workspace)
    [model] = found.models
    assert (model.name, model.purpose, model.embedding) == (NAME, "rerank", 0)
    assert (found.format, found.min_reader) == (2, 2)


def test_served_model_sorts_documents_and_does_nothing_else(host: Path) -> None:
    body: dict[str, Any] = {"model": NAME, "query": DEFAULT.query, "documents": [*DEFAULT.documents, "A mat."]}
    with serving(host) as (url, key):
        status, answer = post(f"{url}/v1/rerank", key, body)
        assert status == 200, answer
        scores = [one["relevance_score"] for one in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(one["index"] for one in answer["results"]) == [0, 1, 2]
        turned = post(f"{url}/v1/rerank", key, {**body, "documents": body["documents"][::-1]})[1]
        assert [2 - one["index"] for one in turned["results"]] == [one["index"] for one in answer["results"]]
        for path, fields in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/embeddings", {"input": "x"}),
        ):
            status, refused = post(f"{url}{path}", key, {"model": NAME, **fields})
            assert (status, refused["error"]["code"]) == (400, "model_only_ranks")
    assert "everything is as it was signed" in run("status", "--prefix", host)
