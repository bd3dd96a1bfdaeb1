"""The stick that the tests of a bare host begin with; a module that needs another bundle makes its own `toy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.harness import Stick, make_stick
from tests.toy import build_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder, under a root that no test trusts."""
    return build_toy(tmp_path_factory.mktemp("toy"))[1]


@pytest.fixture
def stick(toy: Path, tmp_path: Path) -> Stick:
    """The bundle on a stick, signed by people."""
    return make_stick(toy, tmp_path)
