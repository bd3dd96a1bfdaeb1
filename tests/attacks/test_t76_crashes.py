"""T76: a user who ends an engine with one request, again and again, until nobody is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.engine import crashes
from appliance.host.engine.crashes import MAX_CRASHES, WINDOW_S
from appliance.host.engine.state import RESTARTING, STOPPED, read_state
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import engine_socket
from appliance.serve.unit_programs.engine_end import record_end
from tests.attacks.harness import guard_off, row

ROW = row(76)
RELEASE = "1.0.0-0123456789ab"
CRASH = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "ABRT"}


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    found = Prefix(tmp_path)
    for model in ("toy", "other"):
        engine_socket(found, found.releases / RELEASE, model).parent.mkdir(parents=True)
    return found


def end(prefix: Prefix, model: str, times: int, every_s: float) -> str:
    """End an engine so often; gives its state then."""
    for number in range(times):
        record_end(prefix, RELEASE, model, CRASH, 1000.0 + number * every_s)
    state = read_state(engine_socket(prefix, prefix.releases / RELEASE, model))
    assert state is not None
    return state.status


def test_unattacked_engine_that_ends_now_and_then_is_started_again(prefix: Prefix) -> None:
    assert end(prefix, "toy", 4 * MAX_CRASHES, WINDOW_S / 2) == RESTARTING


def test_attacked_engine_is_stopped_and_no_other(prefix: Prefix) -> None:
    assert end(prefix, "toy", MAX_CRASHES, 2.0) == STOPPED
    assert end(prefix, "other", 1, 2.0) == RESTARTING


def test_unguarded_engine_is_started_for_ever(prefix: Prefix) -> None:
    with guard_off(ROW.guard, lambda *_: ()):
        assert end(prefix, "toy", 4 * MAX_CRASHES, 2.0) == RESTARTING
    assert crashes.read_crashes(engine_socket(prefix, prefix.releases / RELEASE, "toy"), 1000.0) == ()
