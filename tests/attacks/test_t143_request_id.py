"""T143: an identifier of a request that forges a line of a log, or carries a key into one."""

from __future__ import annotations

import re

import pytest

from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.request_id import begin_request
from tests.attacks.harness import guard_off, row

ROW = row(143)
FORGED = ["a\nERROR appliance: the key ak-1 was granted", "a\r\nset-cookie: x=1", 'a" b="c', "ak-0123456789ab-secret"]


def taken(sent: str) -> str:
    """The identifier that the reply, the error and the log get."""
    chosen = begin_request([(b"x-request-id", sent.encode())])
    assert Refusal(400, "x", "y").body()["error"]["request_id"] == chosen
    return chosen


def test_unattacked_identifier_of_a_client_is_kept() -> None:
    assert taken("4bf92f3577b34da6a3ce929d0e0e4736") == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("sent", FORGED)
def test_attacked_identifier_is_replaced(sent: str) -> None:
    assert re.fullmatch(r"req_[0-9a-f]{24}", taken(sent))


@pytest.mark.parametrize("sent", FORGED)
def test_unguarded_it_gets_everywhere(sent: str) -> None:
    with guard_off(ROW.guard, lambda _text: True):
        assert taken(sent) == sent
