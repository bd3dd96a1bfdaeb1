"""One bundle for two releases of Debian, each with a Python of its own; `test_11_bare_host` installs it on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.bundle import open_bundle
from signing.floors import Floors
from tests.journeys.conftest import TwoSystems
from tests.toy import NOW

pytestmark = [pytest.mark.ci, pytest.mark.network, pytest.mark.timeout(600)]


def test_wheels_that_only_one_python_takes_lie_in_a_folder_of_its_own(two_systems: TwoSystems) -> None:
    contents = open_bundle(two_systems.bundle, two_systems.root.read_bytes(), Floors(), NOW).value.contents
    folders = {Path(file.path).parent.name for file in contents.of_kind("wheel")}
    assert folders == {"wheels", "cp311", "cp313"}
    assert [target.python for target in contents.targets] == [("3.11",), ("3.13",)]
