"""T121: a release starts, never answers and never ends, so that a host that waits for it stays without service."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.host.activation.health import Health
from appliance.host.change.change_file import INSTALL, TRYING, HostChange, clear_change, write_change
from appliance.host.change.trial import Verdict
from appliance.host.layout.prefix import Prefix
from appliance.serve.unit_programs.trial import watch
from tests.attacks.harness import guard_off, refused, row

ROW = row(121)
NEW, OLD = "1.1.0-0123456789ab", "1.0.0-ba9876543210"
DAY_S = 86_400.0


class Late(Exception):
    """A day has passed, and the watch still waits."""


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    write_change(prefix, HostChange(INSTALL, NEW, OLD, TRYING, "2026-01-31T12:00:00Z"))
    return prefix


def watch_for_a_day(prefix: Prefix, health: Health) -> float:
    """Watch a release that is always so; returns after how many seconds the watch ended."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 10 * seconds
        if now > DAY_S:
            raise Late

    def commit(_change: HostChange) -> None:
        clear_change(prefix)

    watch(prefix, lambda: health, commit, lambda: now, sleep)
    return now


def test_unattacked_a_healthy_release_is_good_after_its_time(prefix: Prefix) -> None:
    assert watch_for_a_day(prefix, Health.READY) == 600


def test_attacked_by_a_release_that_never_answers(prefix: Prefix) -> None:
    refused(ROW, lambda: watch_for_a_day(prefix, Health.WAITING), "trial.failed", NEW)


def test_attacked_by_a_release_that_never_answers_and_a_site_file_that_is_wrong(prefix: Prefix) -> None:
    prefix.site_file.write_text("trial: {ready_within: for ever}\n")
    refused(ROW, lambda: watch_for_a_day(prefix, Health.WAITING), "trial.failed", NEW)


def test_unguarded_the_host_waits_for_ever(prefix: Prefix) -> None:
    with guard_off(ROW.guard, lambda *_: Verdict.GOES_ON), pytest.raises(Late):
        watch_for_a_day(prefix, Health.WAITING)
