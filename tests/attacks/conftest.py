"""The stick and the host that attacks begin with, and the number of open rows at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.inputs import Host
from appliance.host.trust.trust_store import write_root
from tests.appliance.sim_card import CARD
from tests.attacks.harness import OPEN, Stick, make_stick, table
from tests.toy import NOW, build_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder, under a root that no test trusts."""
    return build_toy(tmp_path_factory.mktemp("toy"))[1]


@pytest.fixture
def stick(toy: Path, tmp_path: Path) -> Stick:
    """The bundle on a stick, signed by people."""
    return make_stick(toy, tmp_path)


@pytest.fixture
def host(stick: Stick, tmp_path: Path) -> Host:
    """A host on which a person has pinned the root."""
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    write_root(prefix, stick.root)
    return Host(prefix, CARD, lambda: NOW, "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows, most = table()
    still = [str(threat.row) for threat in rows if threat.status == OPEN]
    terminalreporter.write_line(f"threats: {len(rows) - len(still)} answered, {len(still)} open ({', '.join(still)})")
