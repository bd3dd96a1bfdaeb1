"""T34: the air gap that dials out. What an install or an engine starts has no network to dial into."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.harness import row
from tests.bed.abilities import no_network
from tests.bed.fixtures import require
from tests.bed.ledger import AttemptsError, Ledger

pytestmark = pytest.mark.bed
ROW = row(34)
TOP = Path(__file__).resolve().parents[2]
DIAL = "import socket; s = socket.socket(); s.settimeout(2); s.connect(('192.0.2.1', 443))"
LOOK_UP = "import socket; socket.getaddrinfo('updates.example', 443)"
# As `appliance.host.process.programs` and `appliance.host.engine.process` start uv, Ansible and llama-server.
START = """
import sys
from functools import partial
from pathlib import Path
from appliance.host.process import child

if sys.argv[2] == "off":
    child.spawn = partial(child.spawn, isolated=False)
started = child.spawn([sys.executable, "-I", "-c", sys.argv[1]], cwd=Path("/"), env={})
sys.exit(started.wait(60))
"""


@pytest.fixture
def loud_ledger() -> Iterator[Ledger]:
    """A ledger that is expected to count something."""
    require(no_network())
    with Ledger() as made:
        yield made


def start(ledger: Ledger, program: str, guard: str = "on") -> int:
    """Start a program as a child of the appliance, under the ledger."""
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    return ledger.run([sys.executable, "-c", START, program, guard], check=False, env=environment).code


def test_unattacked_child_ends_well_and_nothing_is_counted(ledger: Ledger) -> None:
    assert start(ledger, "print('done')") == 0
    assert ledger.network.attempts().total == 0


@pytest.mark.parametrize("program", [DIAL, LOOK_UP])
def test_attacked_by_a_child_that_dials_out_nothing_leaves(ledger: Ledger, program: str) -> None:
    assert start(ledger, program) != 0
    assert ledger.network.attempts().total == 0


def test_unguarded_the_attempt_is_counted_and_named(loud_ledger: Ledger) -> None:
    assert ROW.guard == "appliance.host.process.child.spawn"
    assert start(loud_ledger, DIAL, "off") != 0
    with pytest.raises(AttemptsError, match=r"192\.0\.2\.1"):
        loud_ledger.require_none()
