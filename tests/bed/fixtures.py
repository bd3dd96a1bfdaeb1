"""Fixtures for tests that need a bed, as a pytest plugin: every test of the project may use them.

Rules:

- A test that uses one of them, or lies in this folder, is marked `bed`; with a guest it is marked `vm` too.
- A test whose bed this machine lacks is skipped with the reason.
- What tried to reach a network fails the test that used the fixture, whatever else it checked.
- Loading it starts nothing: what the machine can do is found out by the first test that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bed import guest_abilities, guest_bed
from tests.bed.abilities import no_hosts, no_network
from tests.bed.cache import bed_folder
from tests.bed.fleet import Fleet
from tests.bed.guest import Guest
from tests.bed.host import Host
from tests.bed.ledger import AttemptsError, Ledger
from tests.bed.network import Attempts
from tests.bed.nspawn import NspawnHost
from tests.bed.trees import DEBIAN_12, TREES, Tree

HERE = Path(__file__).parent
BED_FIXTURES = frozenset({"any_host", "fleet", "guest", "ledger", "new_nspawn_host", "nspawn_host"})
GUEST_FIXTURES = frozenset({"guest"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a bed, before the command line chooses by marker."""
    for item in items:
        used = item.fixturenames if isinstance(item, pytest.Function) else ()
        if item.path.is_relative_to(HERE) or not BED_FIXTURES.isdisjoint(used):
            item.add_marker(pytest.mark.bed)
        if not GUEST_FIXTURES.isdisjoint(used):
            item.add_marker(pytest.mark.vm)


def require(reason: str | None) -> None:
    """Skip the test when there is a reason."""
    if reason is not None:
        pytest.skip(reason)


def tree_folder(tree: Tree) -> Path:
    """Where a tree lies. Skips the test when this machine boots no hosts of it."""
    require(no_hosts(tree))
    return bed_folder() / tree.key()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger to run commands under, which must be at 0 in the end."""
    require(no_network())
    with Ledger() as made:
        yield made
        made.require_none()


@contextmanager
def quiet_nspawn_host(tree: Tree) -> Iterator[NspawnHost]:
    """A fresh host that must not have tried to reach a network in the end."""
    with NspawnHost(tree_folder(tree)) as made:
        yield made
        _require_none(made.attempts())


@pytest.fixture(params=[DEBIAN_12.name])
def nspawn_host(request: pytest.FixtureRequest) -> Iterator[NspawnHost]:
    """A fresh Debian 12 host. Another tree: `@pytest.mark.parametrize("nspawn_host", ["debian-13"], indirect=True)`."""
    with quiet_nspawn_host(TREES[request.param]) as made:
        yield made


@pytest.fixture
def new_nspawn_host() -> Iterator[Callable[[], NspawnHost]]:
    """Makes fresh Debian 12 hosts."""
    folder = tree_folder(DEBIAN_12)
    with ExitStack() as hosts:
        yield lambda: hosts.enter_context(NspawnHost(folder))


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Three fresh Debian 12 hosts on one switch."""
    with Fleet(tree_folder(DEBIAN_12)) as made:
        yield made
        for host in made.hosts:
            _require_none(host.attempts())


@contextmanager
def fresh_guest() -> Iterator[Guest]:
    """A fresh guest. Skips the test when this machine runs none."""
    require(guest_abilities.no_guests())
    with guest_bed.fresh_guest() as made:
        yield made


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A fresh virtual machine without a network card."""
    with fresh_guest() as made:
        yield made


@pytest.fixture(params=["nspawn", pytest.param("guest", marks=pytest.mark.vm)])
def any_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A fresh host of every kind in turn: for scenarios that must hold on all."""
    with quiet_nspawn_host(DEBIAN_12) if request.param == "nspawn" else fresh_guest() as made:
        yield made


def _require_none(attempts: Attempts) -> None:
    if attempts.total:
        raise AttemptsError(f"the host tried to reach a network: {attempts}")
