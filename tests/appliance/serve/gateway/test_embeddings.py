"""Only a model that makes embeddings gets requests for them, and it gets no others."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.appliance.serve.gateway.site import DIGESTS, Site, opened, question
from tests.sim.engines import notes


@pytest.fixture(scope="module")
def both() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 1, "embeds": 1}) as site,
    ):
        yield site


def test_client_of_openai_gets_embeddings_and_what_made_them(both: Site) -> None:
    raw = both.client().embeddings.with_raw_response.create(model="embeds", input=["a", "b"], encoding_format="float")
    rows = {row.index: row.embedding for row in raw.parse().data}
    assert [len(rows[at]) for at in (0, 1)] == [8, 8]
    assert rows[0] != rows[1]
    assert raw.headers["appliance-model"] == both.models["embeds"]
    assert json.loads(raw.content)["appliance"]["engine"] == DIGESTS["engine"]
    assert notes(both.sockets)[-1]["path"] == "/v1/embeddings"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_model_that_embeds_gets_no_request_to_chat(both: Site, path: str) -> None:
    before = len(notes(both.sockets))
    asked = question("x", "embeds") if "chat" in path else {"model": "embeds", "prompt": "x"}
    status, _, body = both.call("POST", path, asked)
    error = json.loads(body)["error"]
    assert (status, error["code"], error["param"], error["type"]) == (
        400,
        "model_only_embeds",
        "model",
        "invalid_request_error",
    )
    assert "/v1/embeddings" in error["message"]
    assert len(notes(both.sockets)) == before


def test_model_that_chats_gets_no_request_to_embed(both: Site) -> None:
    before = len(notes(both.sockets))
    with pytest.raises(openai.BadRequestError) as caught:
        both.client().embeddings.create(model="toy", input="x")
    assert (caught.value.code, caught.value.param) == ("model_cannot_embed", "model")
    assert "/v1/chat/completions" in str(caught.value)
    assert len(notes(both.sockets)) == before


def test_key_that_may_not_use_the_model_does_not_learn_its_kind(both: Site) -> None:
    status, _, body = both.call("POST", "/v1/chat/completions", question("x", "embeds"), "narrow")
    assert (status, json.loads(body)["error"]["code"]) == (403, "model_forbidden")


def test_list_of_models_shows_which_embeds(both: Site) -> None:
    listed = {model["id"]: model for model in json.loads(both.call("GET", "/v1/models")[2])["data"]}
    assert listed["embeds"]["embedding"] == 8
    assert "embedding" not in listed["toy"]
    ready = {model["name"]: model for model in json.loads(both.call("GET", "/readyz", key=None)[2])["models"]}
    assert ready["embeds"]["embedding"] == 8
    assert "embedding" not in ready["toy"]
