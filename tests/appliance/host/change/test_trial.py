"""A release on trial becomes good after a time of health, and fails early only for a reason of its own."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from appliance.host.activation.health import Health
from appliance.host.change import trial
from appliance.host.change.change_file import (
    COMMITTING,
    INSTALL,
    RESTORE,
    RESTORING,
    TRYING,
    HostChange,
    clear_change,
    read_change,
    write_change,
)
from appliance.host.change.trial import MAX_GAP_S, MAX_STARTS, TrialWatch, Verdict, begin_watch, note_ready
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.site.config import Trial
from appliance.serve.unit_programs.trial import watch
from signing.errors import ApplyRestoredError, BusyError

READY, WAITING, STOPPED, FAILED = Health.READY, Health.WAITING, Health.STOPPED, Health.FAILED
NEW, OLD = "1.1.0-0123456789ab", "1.0.0-ba9876543210"
ON_TRIAL = HostChange(INSTALL, NEW, OLD, TRYING, "2026-01-31T12:00:00Z")


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    return prefix


def judged(series: list[tuple[Health, int]], trial: Trial) -> tuple[Verdict, float, str]:
    """The first verdict that ends a trial, when it came, and why; each state lasts for some seconds."""
    watch, now = TrialWatch(trial, 100.0), 100.0
    for health, seconds in series:
        for _ in range(seconds):
            now += 1
            verdict = watch.observe(health, now)
            if verdict is not Verdict.GOES_ON:
                return verdict, now - 100, watch.reason
    return Verdict.GOES_ON, now - 100, ""


@pytest.mark.parametrize(
    ("series", "verdict", "after"),
    [
        ([(READY, 99)], Verdict.GOOD, 60),
        ([(WAITING, 20), (READY, 99)], Verdict.GOOD, 81),
        ([(READY, 50), (WAITING, 5), (READY, 99)], Verdict.GOOD, 116),
        ([(WAITING, 99)], Verdict.BAD, 31),
        ([(READY, 50), (WAITING, 99)], Verdict.BAD, 81),
        ([(WAITING, 30), (READY, 1), (WAITING, 30), (READY, 1)], Verdict.GOES_ON, 62),
        ([(READY, 10), (FAILED, 1)], Verdict.BAD, 11),
        ([(STOPPED, 999)], Verdict.GOES_ON, 999),
        ([(READY, 30), (STOPPED, 500), (READY, 99)], Verdict.GOOD, 560),
    ],
)
def test_verdict_follows_from_what_was_observed(
    series: list[tuple[Health, int]], verdict: Verdict, after: float
) -> None:
    found, seconds, reason = judged(series, Trial(60, 30))
    assert (found, seconds) == (verdict, after)
    assert bool(reason) == (verdict is Verdict.BAD)


def test_gap_in_the_observation_counts_neither_as_health_nor_as_failure() -> None:
    watch = TrialWatch(Trial(600, 300), 0.0)
    assert watch.observe(READY, 1.0) is Verdict.GOES_ON
    assert watch.observe(READY, 5000.0) is Verdict.GOES_ON, "a machine that slept is not healthy for that time"
    assert watch.observe(WAITING, 9000.0) is Verdict.GOES_ON
    assert watch.observe(WAITING, 8000.0) is Verdict.GOES_ON, "a clock that goes back adds nothing"
    assert MAX_GAP_S < 300


class SimTime:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run_watch(prefix: Prefix, found: list[Health], commits: list[HostChange], busy: int = 0) -> float:
    time, left = SimTime(), list(found)

    def observe() -> Health:
        return left.pop(0) if len(left) > 1 else left[0]

    def commit(change: HostChange) -> None:
        nonlocal busy
        if busy:
            busy -= 1
            raise BusyError("install.busy", "lock", expected="", found="")
        commits.append(change)
        clear_change(prefix)

    watch(prefix, observe, commit, lambda: time.now, time.sleep)
    return time.now


def test_healthy_release_is_committed_after_the_time_of_the_site(prefix: Prefix) -> None:
    write_change(prefix, ON_TRIAL)
    prefix.site_file.write_text("trial: {good_after: 120}\n")
    commits: list[HostChange] = []
    assert run_watch(prefix, [WAITING, READY], commits, busy=3) == pytest.approx(124, abs=2)
    assert [one.release for one in commits] == [NEW]


def test_release_that_does_not_become_ready_ends_the_watch_with_7(prefix: Prefix) -> None:
    write_change(prefix, ON_TRIAL)
    commits: list[HostChange] = []
    with pytest.raises(ApplyRestoredError, match=r"trial\.failed.*not ready within 300 s") as caught:
        run_watch(prefix, [WAITING], commits)
    assert caught.value.exit_code == 7
    assert not commits


def test_wrong_site_file_changes_no_verdict(prefix: Prefix) -> None:
    write_change(prefix, ON_TRIAL)
    prefix.site_file.write_text("trial: soon\n")
    commits: list[HostChange] = []
    assert run_watch(prefix, [READY], commits) == pytest.approx(600, abs=2)


def test_ordinary_restarts_return_nothing_and_starts_that_never_become_ready_do(prefix: Prefix) -> None:
    write_change(prefix, ON_TRIAL)
    for _ in range(3 * MAX_STARTS):
        begin_watch(prefix)
        note_ready(prefix)
    for _ in range(MAX_STARTS):
        begin_watch(prefix)
    with pytest.raises(ApplyRestoredError, match="starts in a row"):
        begin_watch(prefix)


def test_watch_ends_when_another_command_supersedes_the_trial(prefix: Prefix) -> None:
    write_change(prefix, ON_TRIAL)
    seen: list[Health] = []

    def observe() -> Health:
        seen.append(READY)
        if len(seen) == 3:
            write_change(prefix, HostChange(RESTORE, "", "", RESTORING, ON_TRIAL.since))
        return READY

    def commit(_change: HostChange) -> None:
        raise AssertionError("nothing is committed")

    time = SimTime()
    watch(prefix, observe, commit, lambda: time.now, time.sleep)
    assert len(seen) == 3


def test_commit_that_was_cut_off_is_finished_at_the_next_start(prefix: Prefix) -> None:
    write_change(prefix, HostChange(INSTALL, NEW, OLD, COMMITTING, ON_TRIAL.since))
    commits: list[HostChange] = []
    assert run_watch(prefix, [FAILED], commits) == 0, "nothing is observed, and nothing returns"
    assert [one.phase for one in commits] == [COMMITTING]


def test_nothing_on_trial_is_watched_by_nobody(prefix: Prefix) -> None:
    commits: list[HostChange] = []
    assert run_watch(prefix, [FAILED], commits) == 0
    assert read_change(prefix) is None


def test_count_of_starts_never_replaces_what_another_command_writes(prefix: Prefix) -> None:
    """Such a late write would bring the record of a trial back that a rollback has ended."""
    write_change(prefix, ON_TRIAL)
    with hold(prefix):
        assert begin_watch(prefix, wait_s=0.0) == ON_TRIAL
        note_ready(prefix, wait_s=0.0)
        assert read_change(prefix) == ON_TRIAL
    reads = [ON_TRIAL, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "read_change", lambda _prefix: reads.pop(0))
        clear_change(prefix)
        assert begin_watch(prefix) is None, "it ended while the lock was waited for"
    assert read_change(prefix) is None


def test_full_disk_counts_no_start_and_ends_no_watch(prefix: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the unit of the watch would fail a few times, and that returns."""
    write_change(prefix, ON_TRIAL)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "change")

    monkeypatch.setattr(trial, "write_change", full)
    commits: list[HostChange] = []
    assert run_watch(prefix, [READY], commits) == pytest.approx(600, abs=2)
    assert [one.release for one in commits] == [NEW]
