"""Two installs at once: the second waits a moment, then leaves with exit code 75 (threat T36)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from signing.errors import BusyError


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix.at(tmp_path / "host")
    made.create()
    return made


def test_second_install_is_refused_and_the_error_names_the_first(prefix: Prefix) -> None:
    with hold(prefix), pytest.raises(BusyError) as caught, hold(prefix, wait_s=0.1):
        pass
    assert caught.value.exit_code == 75
    assert "process" in caught.value.found


def test_lock_is_free_again_afterwards_also_after_a_failure(prefix: Prefix) -> None:
    with pytest.raises(RuntimeError), hold(prefix):
        raise RuntimeError
    with hold(prefix, wait_s=0):
        pass


def test_next_install_waits_for_a_child_that_outlives_its_install(prefix: Prefix) -> None:
    with hold(prefix) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
        )
    try:
        with pytest.raises(BusyError), hold(prefix, wait_s=0.1):
            pass
    finally:
        child.communicate()
    with hold(prefix, wait_s=0):
        pass
