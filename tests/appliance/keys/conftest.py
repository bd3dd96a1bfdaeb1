"""A trust root that three people and three more made together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.people import Ceremony, finished


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return finished(tmp_path)
