"""T134: a page of another site in a user's browser that reads what the gateway answers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from appliance.serve.listening.origins import AllowedOrigins
from tests.attacks.harness import guard_off, row

ROW = row(134)
OWN, FOREIGN = "https://app.example", ("https://evil.example", "https://app.example.evil.example", "null")
HEADER = "access-control-allow-origin"


async def answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("an answer")


def ask(origin: str, method: str = "GET") -> Any:
    client = TestClient(AllowedOrigins(Starlette(routes=[Route("/v1/models", answer)]), (OWN,)))
    more = {"access-control-request-method": "POST"} if method == "OPTIONS" else {}
    return client.request(method, "/v1/models", headers={"origin": origin, **more})


def test_unattacked_page_of_the_list_may_read() -> None:
    assert ask(OWN).headers[HEADER] == OWN
    assert ask(OWN, "OPTIONS").status_code == 204


@pytest.mark.parametrize("origin", FOREIGN)
def test_attacked_by_a_page_of_another_origin(origin: str) -> None:
    assert HEADER not in ask(origin).headers
    asked = ask(origin, "OPTIONS")
    assert (asked.status_code, HEADER in asked.headers) == (403, False)


def test_unguarded_the_page_reads_the_answer() -> None:
    with guard_off(ROW.guard, lambda _origin, _origins: True):
        assert ask(FOREIGN[0]).headers[HEADER] == FOREIGN[0]
