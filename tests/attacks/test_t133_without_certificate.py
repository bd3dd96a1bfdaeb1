"""T133: a stolen key used without the certificate that the site demands beside it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from appliance.serve.listening.client_certificates import STATE, ClientCertificates
from tests.attacks.harness import guard_off, row

ROW = row(133)
PATHS = ("/v1/models", "/", "/metrics", "/readyz", "/livez")


async def answer(request: Request) -> JSONResponse:
    return JSONResponse(request.scope["extensions"]["tls"])


def ask(path: str, name: str, peer: str = "192.0.2.9") -> Any:
    """Ask over a connection by TLS whose client has shown a certificate with this name, or none."""
    guarded = ClientCertificates(Starlette(routes=[Route(one, answer) for one in PATHS]), required=True)

    async def connected(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "state": {STATE: name}, "client": (peer, 1)}
        await guarded(scope, receive, send)

    return TestClient(connected, base_url="https://ai.example").get(path, headers={"authorization": "Bearer stolen"})


def test_unattacked_user_with_a_certificate_is_served_and_known_by_its_name() -> None:
    assert ask("/v1/models", "CN=ada").json() == {"client_cert_name": "CN=ada"}


def test_unattacked_check_of_health_by_this_machine_needs_none() -> None:
    assert ask("/readyz", "", "127.0.0.1").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_attacked_from_the_network_without_a_certificate(path: str) -> None:
    reply = ask(path, "")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "client_certificate_required")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("path", PATHS[:3])
def test_attacked_from_this_machine_without_a_certificate(path: str) -> None:
    assert ask(path, "", "127.0.0.1").status_code == 403


def test_unguarded_the_stolen_key_is_enough() -> None:
    with guard_off(ROW.guard, lambda _scope, _name: False):
        assert ask("/v1/models", "").status_code == 200
