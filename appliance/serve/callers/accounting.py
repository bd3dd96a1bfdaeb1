"""Events about requests: who was answered, and what was refused.

Owns their fields and their number. Rules:
- a route is one of those that there are, a model one that is served: what a user made up is in no event;
- requests without a valid key come from anybody. At most `MAX_UNKNOWN` a minute get an event; the metrics count all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from appliance.events import ACCESS_ENDED, REQUEST_ANSWERED, REQUEST_REFUSED, Event, OnEvent, Value
from appliance.serve.callers.caller import Caller
from appliance.serve.requests.paths import ROUTES
from appliance.serve.requests.request_id import current_request_id

MAX_UNKNOWN = 60


def answered(caller: Caller, route: str, model: str, status: int, **more: Value) -> Event:
    """The event of a request that has ended, after it got to an engine."""
    fields: dict[str, Value] = {"route": route, "model": model, "status": status, **more}
    return Event(REQUEST_ANSWERED, {**_who(caller), **fields})


def key_end_event(caller: Caller) -> Event:
    """The event of an answer that is ended, since its key was revoked or has expired."""
    return Event(ACCESS_ENDED, _who(caller))


class Refusals:
    """Reports requests that are refused.

    Args:
        report: gets the events.
        clock: seconds, monotonic.
    """

    def __init__(self, report: OnEvent, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._minute, self._unknown = 0, 0

    def report(self, caller: Caller | None, path: str, status: int, code: str) -> None:
        """Report one.

        Args:
            caller: who sent it; None without a valid key.
            path: untrusted.
            status: of the reply.
            code: of the refusal.
        """
        if caller is None and not self._may_report():
            return
        who = _who(caller) if caller else {"request": current_request_id()}
        route = {"route": path} if path in ROUTES else {}
        self._report(Event(REQUEST_REFUSED, {**who, **route, "status": status, "code": code}))

    def _may_report(self) -> bool:
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._unknown = minute, 0
        self._unknown += 1
        return self._unknown <= MAX_UNKNOWN


def _who(caller: Caller) -> dict[str, Value]:
    return {"key": caller.key.id, "account": caller.account, "request": caller.request_id}
