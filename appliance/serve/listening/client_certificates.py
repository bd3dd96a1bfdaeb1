"""Certificates of users: who has shown one, and the refusal of those who must and have not (threat T133).

Owns how a certificate gets from the connection to the request: as the extension `tls` of ASGI, with the certificate's
subject as `client_cert_name`.

Rule: where the site has `client_ca`, a request without a certificate gets 403, whatever its path. The exception are
checks of health by programs of this machine, which have none.
"""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.serve.listening.replies import refusal_response
from appliance.serve.requests.refusal import Refusal

STATE = "client_certificate"
"""Where the connection keeps the name, in the state of its requests."""
HEALTH = ("/livez", "/readyz", "/health")
_FIELDS = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}


class ClientCertificates:
    """Gives each request the name in its connection's certificate, and refuses those without one.

    Args:
        application: what is wrapped.
        required: whether the site has `client_ca`.
    """

    def __init__(self, application: ASGIApp, *, required: bool) -> None:
        self._application, self._required = application, required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        name = scope.get("state", {}).get(STATE, "")
        if self._required and lacks_certificate(scope, name):
            await _missing()(scope, receive, send)
            return
        if scope["scheme"] == "https":
            scope.setdefault("extensions", {})["tls"] = {"client_cert_name": name or None}
        await self._application(scope, receive, send)


def client_name(connection: ssl.SSLObject | None) -> str:
    """The subject of the certificate that a client has shown; empty where it has shown none.

    Args:
        connection: after its handshake, in which an authority of the site was required.
    """
    certificate: dict[str, Any] = (connection.getpeercert() or {}) if connection is not None else {}
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    text = ",".join(f"{_FIELDS.get(name, name)}={value}" for name, value in pairs)
    return "".join(character if character.isprintable() else "?" for character in text)[:200] or (
        "no name" if certificate else ""
    )


def lacks_certificate(scope: Scope, name: str) -> bool:
    """Whether a request must not pass where certificates are required.

    Args:
        scope: of the request.
        name: in the certificate of its connection; empty where that has none.
    """
    client = scope.get("client")
    is_own_check = client is not None and ip_address(client[0]).is_loopback and scope["path"] in HEALTH
    return not name and not is_own_check


def _missing() -> ASGIApp:
    message = "This service needs a certificate of the client beside its key. Ask your operator for one."
    refusal = Refusal(403, "client_certificate_required", message, headers={"connection": "close"})
    return refusal_response(refusal)
