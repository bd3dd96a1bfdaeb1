"""What a request passes before it waits for an engine: its fields, its model, its length, its tools.

Owns the order of these checks. Those of a large body take seconds. One thread does them, one body after the other, and
others are answered meanwhile.

This module and what it imports load pydantic. A host keeps no compiled modules, so that would add a third to the
gateway's start. `routes` loads this module in a thread, after the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from appliance.serve.callers.caller import Caller
from appliance.serve.dialects.forms import read_request
from appliance.serve.gateway.backend import Backend
from appliance.serve.gateway.relay import Relay
from appliance.serve.listening.leaving import USER_LEFT
from appliance.serve.listening.replies import engine_lost
from appliance.serve.observation.metrics import Metrics
from appliance.serve.requests.body import parse_body
from appliance.serve.requests.chat import ChatRequest
from appliance.serve.requests.paths import ROUTES
from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.work import check_length, plan_work
from appliance.serve.sharing.residence import Stay
from appliance.serve.upstream.connection import LostError

LARGE_BYTES = 64 << 10
T = TypeVar("T")
_one_thread = ThreadPoolExecutor(1, "checks of large bodies")


async def admit(route: str, data: bytes, caller: Caller, find: Callable[[str], Backend], metrics: Metrics) -> Relay:
    """Check a request, and make the response that passes it on.

    Args:
        route: one of `ROUTES`.
        data: the body, untrusted.
        caller: who sent it.
        find: gives the model of a name, or raises a refusal.
        metrics: where it is counted.

    Raises:
        Refusal: what is wrong with the request, or why its model cannot answer now.
    """
    checked, form = await _check(len(data), lambda: read_request(route, parse_body(data)))
    backend = find(checked.model)
    stay = Stay()
    try:
        _refuse_unable(backend, route)
        caller.check_quota()
        await _check(len(data), lambda: check_length(checked, backend.model.context))
        stay = await backend.enter(caller.account)
        _refuse_unable(backend, route)
        has_calls = isinstance(checked, ChatRequest) and checked.has_calls()
        has_tools = has_calls and await _has_tools(backend)
        work = form.adapt(await _check(len(data), lambda: plan_work(checked, has_tools=has_tools)))
    except BaseException as error:
        stay.end()
        if isinstance(error, Refusal):
            metrics.count_request(backend.name, route, error.status)
            raise form.refused(error) from None
        metrics.count_request(backend.name, route, USER_LEFT if isinstance(error, asyncio.CancelledError) else 500)
        raise
    return Relay(backend, work, form, caller, metrics, stay)


def _refuse_unable(backend: Backend, route: str) -> None:
    refusal = backend.refusal(ROUTES[route].task)
    if refusal is not None:
        raise refusal


async def _check(size_bytes: int, check: Callable[[], T]) -> T:
    if size_bytes < LARGE_BYTES:
        return check()
    return await asyncio.get_running_loop().run_in_executor(_one_thread, check)


async def _has_tools(backend: Backend) -> bool:
    try:
        return await backend.has_tools()
    except LostError:
        raise engine_lost(backend.name) from None
