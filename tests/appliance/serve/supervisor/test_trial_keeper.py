"""Below a prefix, `appliance serve` makes a release on trial good, or returns to the release before."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.host.activation.health import Health
from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    SWITCHING,
    TRYING,
    HostChange,
    change_path,
    read_change,
    utc_text,
    write_change,
)
from appliance.host.change.way_back import keep_reserve, previous_target
from appliance.host.install import commit
from appliance.host.release.release import Release, current_target, open_current
from appliance.serve.supervisor.service_event import GOOD, RETURNED, ServiceEvent
from appliance.serve.supervisor.trial_keeper import TrialKeeper, is_fault_of_release, undo_cut_off_switch
from signing.errors import BusyError, DamagedError, DriftError, HostUnfitError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.toy import NOW


@dataclass
class Watched:
    """A host whose new release is on trial, and what watches it."""

    site: Site
    release: Release
    old: str
    now: float = 0.0
    events: list[ServiceEvent] = field(default_factory=list)
    keeper: TrialKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = TrialKeeper(self.site.sim.prefix, lambda: NOW, self.events.append, lambda: self.now)

    def go_on(self, seconds: int, health: Health) -> None:
        for _ in range(seconds):
            self.now += 1
            self.keeper.poll(self.release, lambda _name: health)

    @property
    def happened(self) -> list[tuple[str, str]]:
        return [(event.what, event.subject) for event in self.events]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    site = new_site(tmp_path, monkeypatch)
    site.install()
    old = site.release.name
    release = site.install(build_bundle(site.sim.workspace, "1.1.0", "two")).release
    return Watched(site, release, old)


def test_healthy_release_is_good_after_the_time_of_the_site(watched: Watched) -> None:
    prefix = watched.site.sim.prefix
    watched.go_on(599, Health.READY)
    change = read_change(prefix)
    assert change is not None
    assert (change.phase, change.boots) == (TRYING, 0)
    watched.go_on(2, Health.READY)
    assert read_change(prefix) is None
    assert watched.happened == [(GOOD, watched.release.path.name)]
    assert open_current(prefix, NOW).path == watched.release.path
    assert previous_target(prefix) == f"releases/{watched.old}"


@pytest.mark.parametrize(("health", "seconds"), [(Health.FAILED, 1), (Health.WAITING, 301)])
def test_release_that_fails_returns_to_the_one_before(watched: Watched, health: Health, seconds: int) -> None:
    prefix = watched.site.sim.prefix
    watched.go_on(20, Health.READY)
    watched.go_on(seconds, health)
    assert current_target(prefix) == f"releases/{watched.old}"
    assert watched.site.served_port() == 8443
    assert read_change(prefix) is None
    assert watched.happened == [(RETURNED, watched.old)]
    watched.go_on(5, Health.FAILED)
    assert current_target(prefix) == f"releases/{watched.old}"


def test_nothing_returns_once_the_commit_has_begun(watched: Watched) -> None:
    prefix = watched.site.sim.prefix
    write_change(prefix, HostChange(INSTALL, watched.release.path.name, watched.old, COMMITTING, utc_text(NOW)))
    assert not watched.keeper.give_up("it has failed")
    watched.go_on(1, Health.FAILED)
    assert open_current(prefix, NOW).path == watched.release.path
    assert watched.happened == [(GOOD, watched.release.path.name)]
    assert read_change(prefix) is None


def test_switch_that_was_cut_off_is_undone_before_anything_starts(watched: Watched) -> None:
    prefix = watched.site.sim.prefix
    assert not undo_cut_off_switch(prefix)
    write_change(prefix, HostChange(INSTALL, watched.release.path.name, watched.old, SWITCHING, utc_text(NOW)))
    assert undo_cut_off_switch(prefix)
    assert current_target(prefix) == f"releases/{watched.old}"
    assert read_change(prefix) is None


def test_record_that_cannot_be_read_returns_nothing(watched: Watched) -> None:
    change_path(watched.site.sim.prefix).write_text("phase=trying\n")
    watched.go_on(3, Health.FAILED)
    assert current_target(watched.site.sim.prefix) == f"releases/{watched.release.path.name}"
    assert watched.happened == []


@pytest.mark.parametrize(
    ("error", "is_fault"), [(DamagedError, True), (DriftError, True), (BusyError, False), (HostUnfitError, False)]
)
def test_only_a_fault_of_the_release_speaks_against_it(error: type[DamagedError], is_fault: bool) -> None:
    assert is_fault_of_release(error("x.y", "z")) is is_fault


def test_full_disk_ends_neither_what_serves_nor_the_trial(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, right, is_full = watched.site.sim.prefix, commit.begin_commit, True

    def begin_commit(*arguments: Any) -> None:
        if is_full or (prefix.state / ".reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device", "change")
        right(*arguments)

    monkeypatch.setattr(commit, "begin_commit", begin_commit)
    watched.go_on(700, Health.READY)
    change = read_change(prefix)
    assert change is not None
    assert change.phase == TRYING
    is_full = False
    keep_reserve(prefix)
    watched.go_on(1, Health.READY)
    assert watched.happened == [(GOOD, watched.release.path.name)], "the reserve is for this moment"
    assert read_change(prefix) is None
