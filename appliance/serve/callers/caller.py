"""Who sends a request."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.host.site.api_keys import Key


@dataclass(frozen=True, slots=True)
class Caller:
    """The key behind one request.

    Args:
        key: valid when the request came.
        request_id: of this request, as its reply names it.
        certificate: the name in the client's certificate; empty where the connection has none.
    """

    key: Key
    request_id: str = ""
    certificate: str = ""

    @property
    def account(self) -> str:
        """Whom a quota, a share and usage belong to: it stays the same when a key is rotated."""
        return self.key.account
