"""The identifier of a request: the client's own `X-Request-Id`, or one that is made here.

Owns its grammar, and where it is found while a request is answered. Every reply has it as a header, every error has it
in its body, and events name it. So an operator finds what a user reports.

Rules:
- a client's own is taken where it is a plain word of at most 64 characters. It gets into logs, so it holds no space, no
  line end and no quotation mark;
- a word that begins like a key is not taken: a key that was sent in the wrong header must not get into a log;
- of two headers with that name, none is taken.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

REQUEST_ID = "x-request-id"
"""The header, in a request and in its reply."""
GRAMMAR = r"(?!ak-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_current: ContextVar[str] = ContextVar("request_id", default="")


def begin_request(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Take or make the identifier of a request, and keep it for what runs in this context.

    Args:
        headers: of the request, names in lower case; untrusted.

    Returns:
        The identifier: plain ASCII, 1 to 64 characters.
    """
    sent = [value for name, value in headers if name == REQUEST_ID.encode()]
    text = sent[0].decode("latin-1") if len(sent) == 1 else ""
    chosen = text if is_plain(text) else f"req_{secrets.token_hex(12)}"
    _current.set(chosen)
    return chosen


def is_plain(text: str) -> bool:
    """Whether a client's own identifier is taken.

    Args:
        text: untrusted.
    """
    return re.fullmatch(GRAMMAR, text, re.ASCII) is not None


def current_request_id() -> str:
    """The identifier of the request that is being answered; empty outside of one."""
    return _current.get()
