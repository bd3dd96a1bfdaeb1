"""A request that is refused, in the form that OpenAI's or Anthropic's clients understand.

Owns the error itself; `appliance.serve.listening.replies` makes HTTP of it. A refusal names the field and the next
step. It never repeats what a field held: that is a user's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.serve.requests.paths import ANTHROPIC, OPENAI
from appliance.serve.requests.request_id import current_request_id

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status, after Anthropic's reference."""
_DETAILS = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
"""Of a field of Anthropic's that is not supported: its client then sends the whole conversation instead."""
MAX_NAME_CHARS = 200
"""Of a field's path in a refusal: a user may make up names."""


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        code: stable, for programs.
        message: for people.
        param: the field that it is about.
        headers: of the reply.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    def body(self, dialect: str = OPENAI) -> dict[str, Any]:
        """The error as a JSON value, with the identifier of the request that is being answered.

        Args:
            dialect: of the client; Anthropic's has types of its own, and `code` and `param` beside them as here.
        """
        request_id = current_request_id()
        named = {"request_id": request_id} if request_id else {}
        if dialect == ANTHROPIC:
            kind = _ANTHROPIC_TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
            error = {"type": kind, "message": self.message, "param": self.param, "code": self.code}
            details = {"details": _DETAILS[self.param]} if self.param in _DETAILS else {}
            return {"type": "error", "error": {**error, **details}, **named}
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**error, **named}}


def refused_field(code: str, field: str, message: str) -> Refusal:
    """A field that cannot be taken: status 400, with its path."""
    return Refusal(400, code, message, param=field[:MAX_NAME_CHARS])
