"""T144: a user's mistake that comes back as a fault of the server, so that clients send it again and again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from appliance.serve.listening.other_routes import missing_route
from appliance.serve.upstream.answer import Answer, read_whole
from appliance.serve.upstream.connection import Reply
from tests.attacks.harness import guard_off, row

ROW = row(144)
MISTAKES = ["vector::_M_range_check: __n (which is 9) >= this->size() (which is 8)", "Jinja Exception: no such role"]


def read(status: int, message: str) -> Answer:
    """What the gateway makes of an engine's answer."""

    async def blocks() -> AsyncIterator[bytes]:
        yield json.dumps({"error": {"code": status, "message": message, "type": "server_error"}}).encode()

    return asyncio.run(read_whole(Reply(status, "application/json", blocks())))


def test_unattacked_failure_of_the_engine_stays_one() -> None:
    assert read(500, "Compute error.").status == 500
    assert read(400, "too long").status == 400


@pytest.mark.parametrize("message", MISTAKES)
def test_attacked_mistake_is_a_400(message: str) -> None:
    answer = read(500, message)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"


def test_attacked_route_that_the_engine_lacks_is_a_404() -> None:
    refusal = missing_route("/v1/audio/speech")
    assert (refusal.status, refusal.code) == (404, "not_offered")


@pytest.mark.parametrize("message", MISTAKES)
def test_unguarded_it_is_sent_again(message: str) -> None:
    with guard_off(ROW.guard, lambda answer: answer):
        assert read(500, message).status == 500
