"""The shipped engine behind the routes for tokens and for ranking, with a tiny model whose weights are noise."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host.engine.engine_command import EngineSpec
from appliance.host.runtime.unpacked import of_wheel
from tests.appliance.real_engine import describe_model
from tests.appliance.serve.gateway.site import Site, opened
from tests.appliance.shipped import shipped_runtime
from tests.sim.gguf_models import EMBEDDER, write_embedder

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runtime = of_wheel(shipped_runtime().path, tmp_path_factory.mktemp("runtime")).folder_with("x64")
    model = tmp_path_factory.mktemp("model") / "m.gguf"
    write_embedder(model, is_ranker=True)

    def spec(_folder: Path, name: str, slots: int) -> EngineSpec:
        return EngineSpec(
            name, describe_model(model), model, runtime, EMBEDDER.context, slots, threads=1, is_ranking=True
        )

    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, opened(Path(folder), {"ranks": 2}, spec=spec) as made:
        yield made


def post(site: Site, path: str, **fields: Any) -> tuple[int, Any]:
    status, _, data = site.call("POST", path, {"model": "ranks", **fields})
    return status, json.loads(data)


def test_documents_come_sorted_whatever_their_order_in_the_request(site: Site) -> None:
    documents = ["the mat", "a cat sat on the mat", "the cat", ""]
    status, answer = post(site, "/v1/rerank", query="the cat", documents=documents)
    assert status == 200
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(one["index"] for one in answer["results"]) == [0, 1, 2, 3]
    best = documents[answer["results"][0]["index"]]
    turned = post(site, "/v1/rerank", query="the cat", documents=documents[::-1], top_n=1, return_documents=True)[1]
    assert turned["results"][0]["document"] == {"text": best}


def test_document_beyond_the_context_is_the_users_mistake(site: Site) -> None:
    assert post(site, "/v1/rerank", query="the", documents=["the cat", "the " * 100])[0] == 400


def test_text_is_split_into_tokens_and_written_again(site: Site) -> None:
    status, answer = post(site, "/tokenize", content="the cat sat", with_pieces=True)
    assert (status, len(answer["tokens"])) == (200, 3)
    numbers = [one["id"] for one in answer["tokens"]]
    assert post(site, "/detokenize", tokens=numbers)[1]["content"].strip() == "the cat sat"
    status, refused = post(site, "/detokenize", tokens=[2_000_000_000])
    assert (status, refused["error"]["param"]) == (400, "tokens")
