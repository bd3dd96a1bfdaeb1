"""A host with something to lose, and a stick, for the tests of backups and restores."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.maintenance import restore
from tests.appliance.host.held_releases import copied
from tests.appliance.host.lived_in_host import lived_in_host
from tests.appliance.sim_host import SimHost


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SimHost:
    """The host that `host` is a copy of."""
    return lived_in_host(tmp_path_factory.mktemp("template"))


@pytest.fixture
def host(template: SimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimHost:
    """A host whose release need not be whole."""
    monkeypatch.setattr(restore, "open_current", lambda *_: None)
    return copied(template, tmp_path)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """An empty stick."""
    path = tmp_path / "stick"
    path.mkdir()
    return path
