"""What a model does beside chats and embeddings: tokens, ranking; and the routes that there are not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.serve.requests.paths import ROUTES
from tests.appliance.serve.gateway.site import Site, opened, question
from tests.sim.engines import notes


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    slots = {"toy": 1, "embeds": 1, "ranks": 2, "narrow": 1}
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), slots) as made:
        yield made


def post(site: Site, path: str, body: object, key: str | None = "all") -> tuple[int, Any]:
    status, _, data = site.call("POST", path, body, key)
    return status, json.loads(data)


@pytest.mark.parametrize("model", ["toy", "embeds", "ranks"])
def test_every_model_splits_a_text_into_its_tokens_and_back(site: Site, model: str) -> None:
    status, answer = post(site, "/tokenize", {"model": model, "content": "né"})
    assert (status, answer["tokens"]) == (200, [110, 233])
    assert answer["appliance"]["model"] == site.models[model]
    sent = {"model": model, "content": "né", "add_special": False, "parse_special": True, "with_pieces": False}
    assert notes(site.sockets)[-1]["body"] == sent
    assert post(site, "/detokenize", {"model": model, "tokens": [110, 233]})[1]["content"] == "né"
    pieces = post(site, "/tokenize", {"model": model, "content": "n", "with_pieces": True})[1]["tokens"]
    assert pieces == [{"id": 110, "piece": "n"}]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/detokenize", {"model": "toy", "tokens": [2_000_000_000]}, "invalid_field"),
        ("/detokenize", {"model": "toy", "tokens": [-1]}, "invalid_field"),
        ("/detokenize", {"model": "toy", "tokens": ["a"]}, "invalid_field"),
        ("/detokenize", {"model": "toy"}, "field_missing"),
        ("/tokenize", {"model": "toy", "content": ["a", 1]}, "invalid_field"),
        ("/tokenize", {"content": "a"}, "field_missing"),
        ("/tokenize", {"model": "toy", "content": "x" * (512 * 16 + 1)}, "context_length_exceeded"),
        ("/tokenize", {"model": "toy", "content": "x", "id_slot": 1}, "unknown_field"),
        ("/v1/rerank", {"model": "ranks", "query": "x", "documents": []}, "invalid_field"),
        ("/v1/rerank", {"model": "ranks", "query": "x", "documents": ["x"] * 1025}, "invalid_field"),
        ("/v1/rerank", {"model": "ranks", "query": "x", "documents": ["x", {"text": "y"}]}, "invalid_field"),
        ("/v1/rerank", {"model": "ranks", "query": "x", "documents": ["x"], "top_n": 0}, "invalid_field"),
        ("/v1/rerank", {"model": "ranks", "query": "x" * 5000, "documents": ["y" * 5000]}, "context_length_exceeded"),
        # A model's template would write the document into the query, 400 times.
        (
            "/v1/rerank",
            {"model": "ranks", "query": "{document}" * 400, "documents": ["y" * 20]},
            "context_length_exceeded",
        ),
        ("/v1/rerank", {"model": "ranks", "query": "x", "documents": ["y"], "rank_fields": ["a"]}, "unsupported"),
    ],
)
def test_what_cannot_be_is_the_users_mistake(site: Site, path: str, body: object, code: str) -> None:
    status, answer = post(site, path, body)
    assert (status, answer["error"]["code"]) == (400, code)


def test_list_of_models_shows_which_ranks(site: Site) -> None:
    listed = {model["id"]: model for model in json.loads(site.call("GET", "/v1/models")[2])["data"]}
    ready = {model["name"]: model for model in json.loads(site.call("GET", "/readyz", key=None)[2])["models"]}
    for models in (listed, ready):
        assert {name: model.get("task") for name, model in models.items()} == {
            name: "rerank" if name == "ranks" else None for name in site.models
        }


def test_documents_come_sorted_by_their_scores(site: Site) -> None:
    documents = ["a dog", "the cat sat", "a cat", "cat the"]
    body = {"model": "ranks", "query": "the cat", "documents": documents}
    status, answer = post(site, "/v1/rerank", body)
    assert status == 200
    assert [one["index"] for one in answer["results"]] == [1, 3, 2, 0]
    assert [one["relevance_score"] for one in answer["results"]] == [2.0, 2.0, 1.0, 0.0]
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert answer["appliance"]["model"] == site.models["ranks"]
    best = post(site, "/v1/rerank", {**body, "top_n": 1, "return_documents": True})[1]["results"]
    assert best == [{"index": 1, "relevance_score": 2.0, "document": {"text": "the cat sat"}}]
    named = [{"text": text} for text in documents[:1]]
    assert post(site, "/v1/rerank", {**body, "documents": named})[1]["results"][0]["relevance_score"] == 0.0


def test_each_document_is_a_piece_of_work(site: Site) -> None:
    before = len(notes(site.sockets))
    post(site, "/v1/rerank", {"model": "ranks", "query": "x", "documents": list("abc")})
    asked = [note["body"]["documents"] for note in notes(site.sockets)[before:]]
    assert sorted(asked) == [["a"], ["b"], ["c"]]


def test_score_that_is_no_number_is_no_answer(site: Site) -> None:
    status, answer = post(site, "/v1/rerank", {"model": "ranks", "query": "x", "documents": ["a", "nan"]})
    assert (status, answer["error"]["code"]) == (503, "engine_lost")


def test_each_model_does_its_own_work_only(site: Site) -> None:
    documents = {"query": "x", "documents": ["y"]}
    for model in ("toy", "embeds"):
        status, answer = post(site, "/v1/rerank", {"model": model, **documents})
        assert (status, answer["error"]["code"]) == (404, "not_offered")
    for path, body in (("/v1/chat/completions", question("x", "ranks")), ("/v1/embeddings", {"input": "x"})):
        status, answer = post(site, path, {**body, "model": "ranks"})
        assert (status, answer["error"]["code"]) == (400, "model_only_ranks")


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/rerank"])
def test_without_a_key_for_the_model_no_engine_is_reached(site: Site, path: str) -> None:
    bodies: dict[str, dict[str, Any]] = {"/tokenize": {"content": "x"}, "/detokenize": {"tokens": [1]}}
    body = {"model": "toy", **bodies.get(path, {"query": "x", "documents": ["y"]})}
    before = len(notes(site.sockets))
    assert post(site, path, body, None)[0] == 401
    assert post(site, path, body, "narrow")[1]["error"]["code"] == "model_forbidden"
    assert len(notes(site.sockets)) == before


OTHERS = """
/v1/audio/speech /v1/audio/transcriptions /v1/images/generations /v1/files /v1/files/file-1/content /v1/batches
/v1/moderations /v1/fine_tuning/jobs /v1/vector_stores /v1/threads/t/runs /v1/assistants /v1/realtime /v1/videos
/v1/messages/batches /v1/complete /v1/responses/resp_1/input_items /v1/chat/completions/chatcmpl-1/messages
/api/chat /api/generate /api/tags /api/show /api/embed /api/pull /api/version /v2/rerank /v2/chat
/completion /embedding /infill /props /slots /slots/0 /lora-adapters /apply-template /cors-proxy /tools /rerank
/chat/completions /models/load /v1/streams/lookup /invocations /v1/score
"""


@pytest.mark.parametrize("path", OTHERS.split())
def test_route_of_others_is_not_offered_and_says_what_is(site: Site, path: str) -> None:
    before = len(notes(site.sockets))
    for method, body in (("GET", None), ("POST", {"model": "toy"}), ("DELETE", None)):
        status, _, data = site.call(method, path, body)
        error = json.loads(data)["error"]
        assert (status, error["code"]) == (404, "not_offered")
        assert all(offered in error["message"] for offered in ROUTES)
    assert len(notes(site.sockets)) == before


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", "/api", "/v1/filesx", "/v3/chat", "//v1/files", "/robots.txt"])
def test_path_that_nobody_has_is_not_found(site: Site, path: str) -> None:
    status, _, data = site.call("GET", path)
    assert (status, json.loads(data)["error"]["code"]) == (404, "route_not_found")
