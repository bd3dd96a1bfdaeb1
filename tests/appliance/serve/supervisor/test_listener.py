"""The port: loopback only, bound first, and one in use is reported with the process that holds it."""

from __future__ import annotations

import os
import socket

import pytest

from appliance.host.tls.local_connection import format_url
from appliance.serve.supervisor import listener
from signing.errors import HostUnfitError, UsageError


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "localhost", "", "2001:db8::1"])
def test_without_tls_no_address_but_loopback_is_taken(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        listener.bind(address, 0)
    assert (caught.value.code, caught.value.exit_code) == ("serve.not-loopback", 2)


def test_port_0_takes_a_free_one_and_tells_it() -> None:
    with listener.bind("127.0.0.1", 0) as bound:
        listener.listen(bound)
        port = bound.getsockname()[1]
        assert format_url(*bound.getsockname()[:2], is_tls=False) == f"http://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_nobody_is_connected_before_everything_is_ready() -> None:
    with listener.bind("127.0.0.1", 0) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), 5)


def test_port_in_use_is_reported_with_the_process_that_holds_it() -> None:
    with listener.bind("127.0.0.1", 0) as bound:
        listener.listen(bound)
        with pytest.raises(HostUnfitError) as caught:
            listener.bind("127.0.0.1", bound.getsockname()[1])
    assert (caught.value.code, caught.value.exit_code) == ("port.in-use", 6)
    assert f"(process {os.getpid()})" in caught.value.found
    assert "--port 0" in caught.value.hint


def test_of_two_that_bound_the_same_port_the_second_to_listen_is_refused() -> None:
    with (
        listener.bind("127.0.0.1", 0) as first,
        listener.bind("127.0.0.1", first.getsockname()[1]) as second,
    ):
        listener.listen(first)
        with pytest.raises(HostUnfitError, match=r"port\.in-use"):
            listener.listen(second)
