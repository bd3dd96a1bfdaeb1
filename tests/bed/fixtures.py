"""Fixtures for tests that need a bed: a pytest plugin.

Rules:

- A test whose bed this machine lacks is skipped with the reason; in the CI tier that is a failure.
- What tried to reach a network fails the test that used the fixture, whatever else it checked.
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
from tests.bed.host import Host
from tests.bed.ledger import AttemptsError, Ledger
from tests.bed.network import Attempts
from tests.bed.nspawn import NspawnHost
from tests.bed.trees import DEBIAN_12, TREES, Tree


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


@pytest.fixture(params=["nspawn", pytest.param("guest", marks=pytest.mark.vm)])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A fresh host of every kind in turn: for scenarios that must hold on all."""
    if request.param == "nspawn":
        with quiet_nspawn_host(DEBIAN_12) as quiet:
            yield quiet
        return
    require(guest_abilities.no_guests())
    made = guest_bed.fresh_guest()
    try:
        yield made
    finally:
        made.close()


def _require_none(attempts: Attempts) -> None:
    if attempts.total:
        raise AttemptsError(f"the host tried to reach a network: {attempts}")
