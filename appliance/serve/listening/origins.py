"""Pages of browsers that may use the service: the site's list of origins (CORS, Fetch standard 3.2).

Rules (threat T134):
- only an origin that stands in the list, letter by letter, gets an `access-control-allow-origin`, which names it. No
  reply ever has `*`, and none allows credentials: keys come in a header that the page itself sets;
- a question before a request (`OPTIONS` with `access-control-request-method`) is answered here, and reaches no route;
- a page of the list may send every header. Clients of OpenAI and Anthropic add their own, such as `x-stainless-os`;
- where the site has a list, each reply varies by `Origin`, so that no cache gives one page the reply for another.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = "GET, POST"
REQUEST_HEADERS = "authorization, content-type, x-api-key, anthropic-version, x-request-id"
MAX_NAMES = 64
_NAME = re.compile(r"[a-z0-9-]{1,64}\Z")
REPLY_HEADERS = "x-request-id, retry-after"
MAX_AGE_S = 600


class AllowedOrigins:
    """Answers questions of browsers, and marks the replies that a page may read.

    Args:
        application: what is wrapped.
        origins: the site's list; without one, nothing is answered or marked.
    """

    def __init__(self, application: ASGIApp, origins: tuple[str, ...]) -> None:
        self._application, self._origins = application, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._origins:
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = {"vary": "origin"}
        if is_allowed(origin, self._origins):
            allowed["access-control-allow-origin"] = origin
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _answer(allowed, headers)(scope, receive, send)
            return
        if "access-control-allow-origin" in allowed:
            allowed["access-control-expose-headers"] = REPLY_HEADERS
        added = [(name.encode(), text.encode()) for name, text in allowed.items()]

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._application(scope, receive, send_marked)


def is_allowed(origin: str, origins: frozenset[str]) -> bool:
    """Whether a page of an origin may read replies: the site's list has it, letter by letter."""
    return origin in origins


def _answer(allowed: dict[str, str], headers: Headers) -> Response:
    if "access-control-allow-origin" not in allowed:
        return Response(status_code=403, headers=allowed)
    more = {
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": ", ".join((REQUEST_HEADERS, *_asked(headers))),
        "access-control-max-age": str(MAX_AGE_S),
    }
    return Response(status_code=204, headers={**allowed, **more})


def _asked(headers: Headers) -> list[str]:
    """The names of headers that a browser asks for; what is no name is left out."""
    names = headers.get("access-control-request-headers", "").lower().split(",", MAX_NAMES)[:MAX_NAMES]
    return [name for name in map(str.strip, names) if _NAME.match(name) and name not in REQUEST_HEADERS.split(", ")]
