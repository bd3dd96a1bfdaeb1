"""The four forms of a request's target (RFC 9112, 3.2), of which the routes know one.

Rules:
- origin-form passes: `/v1/models`;
- absolute-form is what clients send to a proxy, and a server must serve it: `http://host:8443/v1/models`. It passes as
  its path. The host in it decides nothing, as the header `Host` decides nothing;
- everything else is refused: another scheme, a user's name before the host, and the forms of CONNECT and `OPTIONS *`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.serve.listening.replies import refusal_response
from appliance.serve.requests.refusal import Refusal

_HOST = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
_ABSOLUTE = re.compile(rb"([A-Za-z]+)://" + _HOST + rb"(/.*)?", re.DOTALL)


class OriginForm:
    """Gives the application every target in origin-form.

    Args:
        application: what is wrapped.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith("/"):
            await self._application(scope, receive, send)
            return
        absolute = _ABSOLUTE.fullmatch(scope.get("raw_path", b""))
        if absolute is None or absolute[1].decode().lower() != scope["scheme"]:
            await _refusal()(scope, receive, send)
            return
        raw_path = absolute[2] or b"/"
        rewritten = {**scope, "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path}
        await self._application(rewritten, receive, send)


def _refusal() -> ASGIApp:
    message = "The request's target is neither a path such as /v1/models nor an http:// URL with one."
    return refusal_response(Refusal(400, "invalid_target", message))
