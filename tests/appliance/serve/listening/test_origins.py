"""Pages of browsers: an origin of the site's list may read replies, and no other; no reply is for everybody."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from appliance.serve.listening.origins import AllowedOrigins

APP, OTHER = "https://app.example", "https://other.example"
ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


async def answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


def client(*origins: str) -> TestClient:
    routes = [Route("/v1/models", answer, methods=["GET", "POST"])]
    return TestClient(AllowedOrigins(Starlette(routes=routes), origins))


def cors(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.startswith("access-control") or name == "vary"}


def test_without_a_list_no_reply_speaks_of_origins() -> None:
    asked = client()
    for reply in (
        asked.get("/v1/models", headers={"origin": APP}),
        asked.options("/v1/models", headers={"origin": APP, **ASKING}),
    ):
        assert cors(reply.headers) == {}
    assert reply.status_code == 405


def test_origin_of_the_list_may_read_a_reply() -> None:
    reply = client(OTHER, APP).get("/v1/models", headers={"origin": APP})
    assert (reply.status_code, reply.text) == (200, "here")
    assert cors(reply.headers) == {
        "vary": "origin",
        "access-control-allow-origin": APP,
        "access-control-expose-headers": "x-request-id, retry-after",
    }


def test_question_before_a_request_is_answered_and_reaches_no_route() -> None:
    reply = client(APP).options("/v1/chat/completions", headers={"origin": APP, **ASKING})
    assert (reply.status_code, reply.content) == (204, b"")
    found = cors(reply.headers)
    assert found["access-control-allow-origin"] == APP
    assert found["access-control-allow-methods"] == "GET, POST"
    assert {"authorization", "content-type", "x-api-key"} <= set(found["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in found


def test_page_of_the_list_may_send_the_headers_that_its_client_adds() -> None:
    asked = {**ASKING, "access-control-request-headers": "authorization, X-Stainless-OS,openai-beta, b*d, " + "y" * 65}
    reply = client(APP).options("/v1/chat/completions", headers={"origin": APP, **asked})
    names = reply.headers["access-control-allow-headers"].split(", ")
    assert names[-2:] == ["x-stainless-os", "openai-beta"]
    assert names.count("authorization") == 1
    refused = client(APP).options("/v1/chat/completions", headers={"origin": OTHER, **asked})
    assert cors(refused.headers) == {"vary": "origin"}


@pytest.mark.parametrize(
    "origin",
    [
        OTHER,
        "https://app.example.",
        "https://APP.example",
        "https://app.example:443",
        "http://app.example",
        "https://app.example/",
        "https://app.example.evil.example",
        "https://evil.example?https://app.example",
        "null",
        "*",
        "",
    ],
)
def test_other_origin_may_read_nothing(origin: str) -> None:
    asked = client(APP)
    assert cors(asked.get("/v1/models", headers={"origin": origin}).headers) == {"vary": "origin"}
    refused = asked.options("/v1/models", headers={"origin": origin, **ASKING})
    assert (refused.status_code, cors(refused.headers)) == (403, {"vary": "origin"})


def test_program_without_an_origin_is_served_as_ever() -> None:
    reply = client(APP).post("/v1/models")
    assert (reply.status_code, cors(reply.headers)) == (200, {"vary": "origin"})
    assert client(APP).options("/v1/models").status_code == 405
