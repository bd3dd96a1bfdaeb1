"""The recipes of this repository are built, installed and asked: each but the demo's, which `test_01_demo` builds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.lock.lockfile import lock_path, read_lock, write_lock
from appliance.host.engine.embedding_check import cosine
from bundles.bundle import open_bundle
from signing.digest import sha256
from signing.floors import Floors
from tests.appliance.web import serve
from tests.bed.ledger import Ledger
from tests.journeys.conftest import PROGRAM, RECIPE, Demo, appliance
from tests.sim.gguf_models import Shape, write_model
from tests.toy import NOW

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

TERMS = 'accepted: {by: a test, date: "2026-01-02"}'


@pytest.mark.network
def test_gemma_is_joined_from_its_parts_and_answers_once_its_terms_are_accepted(tmp_path: Path) -> None:
    shutil.copy(RECIPE.with_name("gemma3-270m.lock.json"), tmp_path)
    text = RECIPE.with_name("gemma3-270m.yaml").read_text()
    recipe, workspace, host = tmp_path / "gemma3-270m.yaml", tmp_path / "workspace", tmp_path / "host"
    recipe.write_text(text)
    assert appliance("init", workspace).code == 0
    refused = appliance("build", recipe, "--workspace", workspace)
    assert refused.code == 2
    assert "licence.not-accepted" in refused.err
    assert not list((workspace / "dist").glob("*"))

    recipe.write_text(text.replace("    context: 8192", f"    context: 8192\n    {TERMS}"))
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    bundle, root = workspace / "dist/gemma3-270m-1.0.0", workspace / "trust/root.json"
    (model,) = open_bundle(bundle, root.read_bytes(), Floors(), NOW).value.contents.models
    # What its authors published for the whole file.
    assert model.lineage.sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

    shown = json.loads(appliance("trust", "show", "--workspace", workspace, "--json").out)
    fingerprint = shown["roles"]["root"]["fingerprints"][0]
    assert appliance("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", host).code == 0
    done = appliance("install", bundle, "--prefix", host, "--json")
    assert done.code == 0, done.err
    notes = {step["step"]: step["note"] for step in json.loads(done.out)["steps"]}
    assert notes["candidate"].strip()
    assert (host / "opt/appliance/current/licences/model-gemma3-270m/NOTICE.md").is_file()


@contextmanager
def serving(host: Path) -> Iterator[tuple[str, str]]:
    """The address of what a host serves, and its first key, for the length of a block."""
    command = [*PROGRAM, "serve", "--prefix", str(host), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout is not None
            ready = json.loads(child.stdout.readline())
            yield ready["url"], Path(ready["key_file"]).read_text().strip()
        finally:
            child.terminate()


def post(url: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.network
def test_minilm_is_built_from_its_converted_file_and_embeds_what_is_related_closer(tmp_path: Path) -> None:
    recipe, workspace, host = RECIPE.with_name("minilm-embeddings.yaml"), tmp_path / "workspace", tmp_path / "host"
    pinned = read_lock(lock_path(recipe)).find("converted", "all-minilm-l6-v2")
    assert pinned is not None
    if not Cache(cache_root(os.environ)).has(pinned.sha256, pinned.size):
        pytest.skip(f"{pinned.file} is not in the cache, and making it takes torch: see docs/builder.md")
    assert appliance("init", workspace).code == 0
    built = appliance("build", recipe, "--workspace", workspace)
    assert built.code == 0, built.err
    bundle, root = workspace / "dist/minilm-embeddings-1.0.0", workspace / "trust/root.json"
    (model,) = open_bundle(bundle, root.read_bytes(), Floors(), NOW).value.contents.models
    assert (model.architecture, model.quantisation, model.embedding) == ("bert", "F16", 384)
    assert model.lineage.steps == (pinned.made,)

    shown = json.loads(appliance("trust", "show", "--workspace", workspace, "--json").out)
    fingerprint = shown["roles"]["root"]["fingerprints"][0]
    assert appliance("trust", "pin", root, "--fingerprint", fingerprint, "--prefix", host).code == 0
    done = appliance("install", bundle, "--prefix", host, "--json")
    assert done.code == 0, done.err
    notes = {step["step"]: step["note"] for step in json.loads(done.out)["steps"]}
    assert notes["candidate"] == "384 numbers, the same twice"
    with serving(host) as (url, key):
        texts = ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Interest rates rose last quarter."]
        status, answer = post(f"{url}/v1/embeddings", key, {"model": model.name, "input": texts})
        assert status == 200
        assert answer["appliance"]["model"] == pinned.sha256
        cat, kitten, rates = (row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"]))
        assert cosine(cat, kitten) > 0.5 > 0.2 > cosine(cat, rates)
        messages = [{"role": "user", "content": "Hello"}]
        status, refused = post(f"{url}/v1/chat/completions", key, {"model": model.name, "messages": messages})
        assert (status, refused["error"]["code"]) == (400, "model_only_embeds")


@pytest.mark.network
def test_recipe_of_a_hub_is_locked_by_its_user_and_built_at_that_commit_without_the_hub(tmp_path: Path) -> None:
    recipe, model, commit = tmp_path / "qwen2.5-0.5b.yaml", tmp_path / "model.gguf", "1" * 40
    shutil.copy(RECIPE.with_name(recipe.name), recipe)
    shape = Shape("qwen2", layers=2, width=64, heads=2, kv_heads=2, head_dim=32, ff=128, vocab=300)
    write_model(model, shape, seed=6, template="{{ messages[0].content }}")
    data = model.read_bytes()
    # All but the model is pinned as for the demo, so that the hub alone is asked.
    lock = read_lock(lock_path(RECIPE))
    write_lock(lock_path(recipe), replace(lock, entries=tuple(one for one in lock.entries if one.kind != "model")))
    with serve() as hub:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256(data)}"', "X-Linked-Etag": f'"{sha256(data)}"'}
        for revision in ("main", commit):
            place = f"/Qwen/Qwen2.5-0.5B-Instruct-GGUF/resolve/{revision}/qwen2.5-0.5b-instruct-q4_k_m.gguf"
            hub.put(place, data, headers=headers)
        env = {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
        locked = appliance("lock", recipe, env=env)
    assert locked.code == 0, locked.err
    assert f"+ model qwen2.5-0.5b-instruct {commit} ({len(data)} bytes)" in locked.out
    try:
        again = appliance("lock", recipe, env=env)
        assert (again.code, again.out) == (0, "")
        workspace = tmp_path / "workspace"
        assert appliance("init", workspace).code == 0
        built = appliance("build", recipe, "--workspace", workspace, env=env)
        assert built.code == 0, built.err
    finally:
        Cache(cache_root(os.environ)).discard(sha256(data))
    root = (workspace / "trust/root.json").read_bytes()
    (made,) = open_bundle(workspace / "dist/qwen2.5-0.5b-1.0.0", root, Floors(), NOW).value.contents.models
    assert (made.path, made.architecture) == (
        "models/qwen2.5-0.5b-instruct/qwen2.5-0.5b-instruct-q4_k_m.gguf",
        "qwen2",
    )
    assert made.lineage.sha256 == sha256(data)
    assert made.lineage.source == "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF#qwen2.5-0.5b-instruct-q4_k_m.gguf"


def test_build_from_a_warm_cache_tries_to_reach_no_network(demo: Demo, ledger: Ledger, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    assert appliance("init", workspace).code == 0
    # The demo has filled the cache; the ledger refuses this test if anything was tried.
    ledger.run([*PROGRAM, "lock", str(RECIPE)], timeout_s=280)
    ledger.run([*PROGRAM, "build", str(RECIPE), "--workspace", str(workspace)], timeout_s=280)
    built = sorted(path.name for path in (workspace / "dist/smollm2-1.0.0/blobs/sha256").iterdir())
    assert built == sorted(path.name for path in (demo.bundle / "blobs/sha256").iterdir())
