"""Every test below this folder needs a bed (`make bed`), and is marked so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.fixtures import *  # noqa: F403 - pytest finds fixtures by name in a conftest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here; the hook sees every test of the run."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.bed)
