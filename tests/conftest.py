"""What holds for every test: none reaches another machine from this process unless it is marked `network`."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator

import pytest

pytest_plugins = (
    "tests.bed.fixtures",
    "tests.runner.examples",
    "tests.runner.parallel",
    "tests.runner.quick_collection",
    "tests.runner.scratch",
    "tests.runner.skips",
)

_guard = {"closed": False}


class NetworkTouched(AssertionError):
    """A test reached for another machine."""


def _is_local(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    # An audit hook also sees libraries that keep their own reference to the socket functions.
    if not _guard["closed"]:
        return
    if event == "socket.getaddrinfo" and not _is_local(arguments[0]):
        raise NetworkTouched(f"name lookup of {arguments[0]!r}")
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise NetworkTouched(f"connection to {address!r}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    _guard["closed"] = request.node.get_closest_marker("network") is None
    yield
    _guard["closed"] = False
