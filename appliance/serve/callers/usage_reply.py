"""What a key may read of usage through the gateway, as JSON.

Owns the two answers: of one's own account, for every key, and of all accounts, for auditors and operators. Accounts are
named by their public ids; whose they are, `appliance access usage` shows on the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from appliance.host.site.rights import CONCURRENCY, TOKENS_PER_DAY
from appliance.serve.callers.caller import Caller, role_forbidden
from appliance.serve.callers.usage import UsageCounts, UsageRow

OWN, ALL = "/v1/usage", "/v1/usage/keys"
"""The paths."""
DAYS = 31
"""How far back the answers go."""


async def own_usage(caller: Caller, today: date) -> dict[str, Any]:
    """The usage of a caller's own account, today and on the days before, and its limits."""
    rows = await caller.books.days(today - timedelta(days=DAYS - 1))
    quotas, used = caller.key.rights.quotas, caller.books.usage.today(caller.account)
    limit = quotas.get(TOKENS_PER_DAY)
    return {
        "object": "usage",
        "account": caller.account,
        "key": caller.key.id,
        "day": today.isoformat(),
        **describe(used),
        "tokens_per_day": limit,
        "tokens_left": None if limit is None else max(0, limit - used.tokens),
        "concurrency": quotas.get(CONCURRENCY),
        "days": [_with_day(row) for row in rows if row.account == caller.account and row.day != today],
    }


async def all_usage(caller: Caller, today: date) -> dict[str, Any]:
    """The usage of every account, by day.

    Raises:
        Refusal: the caller's role does not allow it (403).
    """
    check_auditor(caller)
    rows: Iterable[UsageRow] = await caller.books.days(today - timedelta(days=DAYS - 1))
    return {"object": "list", "data": [{"account": row.account, **_with_day(row)} for row in rows]}


def check_auditor(caller: Caller) -> None:
    """Check that a caller may read the usage of others.

    Raises:
        Refusal: the role does not allow it, or the key has a restriction that this version does not enforce (403).
    """
    rights = caller.key.rights
    if not rights.may_audit or not rights.is_enforced:
        raise role_forbidden()


def describe(counts: UsageCounts) -> dict[str, int]:
    """Counts as JSON."""
    return {"tokens_in": counts.tokens_in, "tokens_out": counts.tokens_out, "requests": counts.requests}


def _with_day(row: UsageRow) -> dict[str, Any]:
    return {"day": row.day.isoformat(), **describe(row.counts)}
