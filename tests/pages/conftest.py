"""What the tests of commands share: the folder that each place is a copy of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.place import make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled folder; nothing changes it."""
    folder = tmp_path_factory.mktemp("pages") / "template"
    folder.mkdir()
    make_template(folder)
    return folder
