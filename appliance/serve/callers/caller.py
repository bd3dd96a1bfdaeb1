"""Who sends a request, and what that one may still do."""

from __future__ import annotations

from asyncio import Event as Signal
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from appliance.clock import utc_now
from appliance.host.site.api_keys import Key
from appliance.host.site.rights import TOKENS_PER_DAY
from appliance.serve.callers.books import Books
from appliance.serve.callers.usage import UsageCounts
from appliance.serve.requests.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Caller:
    """The key behind one request.

    Args:
        key: valid when the request came.
        request_id: of this request, as its reply names it.
        certificate: the name in the client's certificate; empty where the connection has none.
        books: of the gateway that was asked.
    """

    key: Key
    request_id: str = ""
    certificate: str = ""
    books: Books = field(default_factory=lambda: Books(utc_now), compare=False)

    @property
    def account(self) -> str:
        """Whom a quota, a share and usage belong to: it stays the same when a key is rotated."""
        return self.key.account

    def check_quota(self) -> None:
        """Check that another piece of work may begin today.

        What has begun is finished. So an account may use more than its quota by what runs at once at that moment.

        Raises:
            Refusal: the tokens of the day are used up (429, with the time until midnight UTC).
        """
        limit = self.key.rights.quotas.get(TOKENS_PER_DAY)
        if limit is not None and self.books.usage.today(self.account).tokens >= limit:
            raise quota_exceeded(limit, self.books.usage.seconds_to_midnight())

    def count(self, tokens_in: int, tokens_out: int) -> None:
        """Count tokens of this request."""
        self.books.usage.add(self.account, UsageCounts(tokens_in, tokens_out))

    def count_request(self) -> None:
        """Count this request: an engine has answered it, wholly or in part."""
        self.books.usage.add(self.account, UsageCounts(requests=1))

    def follow(self) -> AbstractContextManager[Signal]:
        """For the length of the block, a signal that is set when the key is revoked or expires."""
        return self.books.watch.follow(self.key)


def quota_exceeded(limit: int, retry_after_s: int) -> Refusal:
    """For a key whose tokens of the day are used up."""
    message = f"This key has used its {limit} tokens of today. The next day begins at midnight UTC."
    return Refusal(429, "quota_exceeded", message, headers={"retry-after": str(retry_after_s)})


def key_ended() -> Refusal:
    """For an answer whose key was revoked or has expired before the answer was complete."""
    message = "The key of this request was revoked or has expired. Ask your operator for another one."
    return Refusal(401, "invalid_api_key", message)


def role_forbidden() -> Refusal:
    """For what the role of this key does not allow."""
    return Refusal(403, "role_forbidden", "The role of this key does not allow this.")
