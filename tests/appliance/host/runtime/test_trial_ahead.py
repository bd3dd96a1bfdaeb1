"""CPU variants are measured while the environment is built; whatever ends an install ends that, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.process.child import NETNS, NONE
from appliance.host.process.programs import Programs
from appliance.host.release.release import Release
from appliance.host.runtime import extraction
from appliance.host.runtime.extraction import WORK, begin_trial, prepare_runtime
from appliance.host.runtime.trial_ahead import TrialAhead
from appliance.host.runtime.variant_choice import Choice, Measured
from bundles.progress import ignore
from signing.errors import ApplianceError
from tests.appliance.sim_host import SimHost, new_host

VARIANTS = ("haswell", "x64")


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimHost:
    monkeypatch.setattr(extraction, "thread_count", lambda: 2)
    return new_host(tmp_path)


@contextmanager
def untried(sim: SimHost) -> Iterator[tuple[Release, Programs]]:
    """A release without a result of a trial."""
    release = sim.install()
    (sim.prefix.journal / "trials.json").unlink()
    with hold(sim.prefix) as lock:
        yield release, Programs(sim.prefix.scratch, lock)


def test_measurements_of_before_are_taken_and_only_compared(sim: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with untried(sim) as (release, programs):
        ahead = begin_trial(sim.prefix, release.path, release.contents, VARIANTS, programs)
        assert ahead is not None
        assert {choice.variant for choice in ahead.result().ran} == set(VARIANTS)
        monkeypatch.setattr(extraction, "measure", lambda *_: pytest.fail("measured again"))
        arguments = (sim.prefix, release.path, release.contents, VARIANTS, programs, ignore)
        assert prepare_runtime(*arguments, ahead) == Choice("haswell", 320, 92)
        assert not (release.path / WORK).exists()
        # There is a result of this host from now on.
        assert begin_trial(sim.prefix, release.path, release.contents, VARIANTS, programs) is None
        ahead.stop()


def test_machine_with_one_core_measures_when_nothing_else_runs(sim: SimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "thread_count", lambda: 1)
    with untried(sim) as (release, programs):
        assert begin_trial(sim.prefix, release.path, release.contents, VARIANTS, programs) is None


def test_end_of_an_install_ends_the_program_that_measures(sim: SimHost) -> None:
    with untried(sim) as (release, programs):
        # The stand-in of this variant sleeps for ten minutes.
        ahead = begin_trial(sim.prefix, release.path, release.contents, ("zen4",), programs)
        assert ahead is not None
        until = time.monotonic() + 10
        while not (programs.scratch / "trial-zen4.log").exists() and time.monotonic() < until:
            time.sleep(0.01)
        began = time.monotonic()
        ahead.stop()
        ahead.stop()
        assert not ahead._thread.is_alive()
        assert time.monotonic() - began < 60


def test_error_of_the_trial_is_raised_where_its_result_is_asked_for(tmp_path: Path) -> None:
    def work(_programs: Programs) -> Measured:
        raise OSError(28, "No space left on device")

    ahead = TrialAhead(Programs(tmp_path, 0), work)
    with pytest.raises(OSError, match="No space"):
        ahead.result()


def test_no_program_starts_after_the_end_and_a_weaker_isolation_is_reported(tmp_path: Path) -> None:
    programs = Programs(tmp_path, 0)

    def work(own: Programs) -> Measured:
        own.isolation = NONE
        return Measured([])

    ahead = TrialAhead(programs, work)
    assert programs.isolation == NETNS
    ahead.result()
    assert programs.isolation == NONE
    ahead.stop()
    with pytest.raises(ApplianceError, match=r"trial\.stopped"):
        ahead._programs.run(["/bin/true"], "true", cwd=tmp_path, timeout_s=10)
