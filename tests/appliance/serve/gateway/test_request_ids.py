"""Every reply names its request, whatever made it: an engine, a refusal, a page, an error in the middle of a stream."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.appliance.serve.gateway.site import Site, opened, question


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder, opened(Path(folder), {"toy": 1}) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("GET", "/", None, None),
        ("GET", "/livez", None, None),
        ("GET", "/metrics", None, None),
        ("GET", "/v1/models", None, "all"),
        ("GET", "/v1/models", None, "ak-wrong"),
        ("GET", "/nothing", None, None),
        ("GET", "/v1/chat/completions", None, None),
        ("POST", "/v1/chat/completions", question("x"), "all"),
        ("POST", "/v1/chat/completions", question("x", stream=True), "all"),
        ("POST", "/v1/chat/completions", b"{", "all"),
        ("POST", "/v1/chat/completions", question("fail"), "all"),
        ("POST", "/v1/chat/completions", question("compute", stream=True), "all"),
    ],
)
def test_every_reply_has_it(site: Site, method: str, path: str, body: object, key: str | None) -> None:
    status, headers, data = site.call(method, path, body, key, x_request_id="mine-1")
    assert headers["x-request-id"] == "mine-1"
    if status >= 400:
        assert json.loads(data)["error"]["request_id"] == "mine-1"
    made = site.call(method, path, body, key)[1]["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{24}", made)
    assert made != site.call(method, path, body, key)[1]["x-request-id"]


def test_what_the_engine_refuses_has_the_shape_of_every_error(site: Site) -> None:
    status, _, data = site.call("POST", "/v1/chat/completions", question("fail"), x_request_id="long")
    error = {"message": "too long", "type": "invalid_request_error", "param": None}
    error |= {"code": "exceed_context_size_error", "request_id": "long"}
    assert (status, json.loads(data)["error"]) == (400, error)


def test_the_client_shows_it_with_an_error(site: Site) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        site.client().with_options(default_headers={"X-Request-Id": "abc"}).models.retrieve("nothing")
    assert caught.value.request_id == "abc"


def test_error_in_the_middle_of_a_stream_has_it(site: Site) -> None:
    body = site.call("POST", "/v1/chat/completions", question("die", stream=True), x_request_id="cut")[2]
    error = json.loads(body.split(b"data: ")[-1])["error"]
    assert (error["code"], error["request_id"]) == ("engine_lost", "cut")
