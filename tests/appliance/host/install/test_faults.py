"""No fault of the machine at any call of a switch leaves a host in between; `make soak` strikes 10 000 times."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.host_faults import FaultHost, run_campaign

FAULTS = int(os.environ.get("FAULTS", "200"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultHost]:
    with pytest.MonkeyPatch.context() as patch:
        yield FaultHost(tmp_path_factory.mktemp("host"), patch)


@pytest.mark.ci
def test_no_fault_leaves_a_host_in_between(host: FaultHost, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{FAULTS} faults, seed {seed}")
    assert run_campaign(host, tmp_path, FAULTS, seed) == []


@pytest.mark.ci
def test_control_without_a_recovery_a_fault_is_found(host: FaultHost, tmp_path: Path) -> None:
    assert run_campaign(host, tmp_path, 30, 1, lambda _prefix: None) != []
