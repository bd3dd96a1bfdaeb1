"""Rules that hold for every test.

- No test reaches another machine from this process unless it is marked `network`.
- In the CI tier only what `EXPECTED_SKIPS` names is skipped: any other skip is a failure that says what was not tested.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Generator, Iterator

import pytest

EXPECTED_SKIPS = ("test vectors of other projects are not beside this checkout",)
"""What a machine may lack without failing the CI tier; the summary still counts and names it."""

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("TIER") == "ci":
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and the CI tier must run everything: {reason}"
    return report
