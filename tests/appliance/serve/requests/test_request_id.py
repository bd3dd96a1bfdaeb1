"""Identifiers of requests: the client's own where it is a plain word, else one that is made."""

from __future__ import annotations

import re

import pytest

from appliance.serve.requests.refusal import Refusal
from appliance.serve.requests.request_id import begin_request, current_request_id

MADE = r"req_[0-9a-f]{24}"


@pytest.mark.parametrize("sent", ["a", "req-1", "4bf92f3577b34da6a3ce929d0e0e4736", "A.b_c-1", "x" * 64])
def test_plain_word_of_a_client_is_taken(sent: str) -> None:
    assert begin_request([(b"host", b"x"), (b"x-request-id", sent.encode())]) == sent
    assert Refusal(400, "x", "y").body()["error"]["request_id"] == current_request_id() == sent


@pytest.mark.parametrize(
    "sent",
    ["", " ", "a b", "a\nb", "a\r", 'a"b', "-a", ".a", "é", "x" * 65, "ak-1234", "a\x00", "a/b", "{}", "a\n"],
)
def test_everything_else_gets_one_that_is_made(sent: str) -> None:
    made = begin_request([(b"x-request-id", sent.encode("latin-1"))])
    assert re.fullmatch(MADE, made)
    assert made != begin_request([])


def test_of_two_headers_none_is_taken() -> None:
    assert re.fullmatch(MADE, begin_request([(b"x-request-id", b"a"), (b"x-request-id", b"b")]))


def test_outside_of_a_request_an_error_has_none() -> None:
    from contextvars import Context

    assert Context().run(current_request_id) == ""
    assert "request_id" not in Context().run(Refusal(400, "x", "y").body)["error"]
