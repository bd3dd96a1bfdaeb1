"""Finding out who sends a request, from its headers (threat T37).

Owns the two forms in which a key may come: `authorization: Bearer KEY`, as OpenAI's clients send it, and
`x-api-key: KEY`, as Anthropic's do. A key is never read from a URL: those end up in logs and histories.
"""

from __future__ import annotations

from datetime import datetime

from starlette.requests import Request

from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.books import Books
from appliance.serve.callers.caller import Caller
from appliance.serve.requests.request_id import current_request_id


def authenticate(request: Request, access: AccessStore, books: Books, now: datetime) -> Caller | None:
    """Find the caller of a request; None where it has no valid key, whatever the reason.

    Args:
        request: untrusted.
        access: the keys of this host.
        books: of this gateway.
        now: the clock, in UTC.
    """
    key = access.check(_presented(request), now)
    if key is None:
        return None
    tls = (request.scope.get("extensions") or {}).get("tls") or {}
    return Caller(key, current_request_id(), tls.get("client_cert_name") or "", books)


def _presented(request: Request) -> str:
    headers = request.headers
    if "authorization" in headers:
        scheme, _, presented = headers["authorization"].partition(" ")
        return presented.strip() if scheme.lower() == "bearer" else ""
    return headers.get("x-api-key", "").strip()
