"""What each test of a build begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.builder.runtime.build_types import ToolWheels
from tests.appliance.sim_runtime import make_sdist, make_tools


@pytest.fixture
def tools(tmp_path: Path) -> ToolWheels:
    return make_tools(tmp_path / "tools")


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    return make_sdist(tmp_path / "s.tar.gz")
