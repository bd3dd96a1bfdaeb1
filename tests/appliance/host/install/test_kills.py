"""A kill before and after every step leaves the old release or the new one, and the next run finishes.

The boundaries are generated from the steps themselves: a new step cannot be left out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.activation.switch import complete, point_at, target_of
from appliance.host.change.change_file import clear_change, read_change
from appliance.host.change.step_runner import AFTER, BEFORE, ChangeStep, StepRecord
from appliance.host.install import install as install_module
from appliance.host.install.install_run import InstallRun
from appliance.host.install.steps import WHOLE_INSTALL
from appliance.host.layout.places import OK_FILE
from signing.errors import ApplianceError, ApplyRestoredError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.sim.kills import Boundary, boot, check_tree, kept_tree, run_killed

BOUNDARIES = [(step.name, when) for step in WHOLE_INSTALL for when in (BEFORE, AFTER)]
OLD, NEW = "1.0.0", "1.1.0"


def without(*names: str) -> set[Boundary]:
    """The boundaries of all steps but these, which an install does not have."""
    return {one for one in BOUNDARIES if one[0] not in names}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """A host without a release, and a newer bundle."""
    with pytest.MonkeyPatch.context() as patch:
        site = new_site(tmp_path_factory.mktemp("site"), patch)
        yield site, build_bundle(site.sim.workspace, NEW, "two")


def kill_each(site: Site, source: Path, served: Callable[[Boundary], set[str]]) -> list[Boundary]:
    """Kill one install after the other, each at the next boundary, with a boot after each; returns where they died."""
    died: list[Boundary] = []
    for number in range(len(BOUNDARIES)):
        at = run_killed(lambda hook: site.install(source, on_boundary=hook), BOUNDARIES, number)
        if at is None:
            break  # this install has no further step
        died.append(at)
        boot(site.sim.prefix)
        check_tree(site.sim.prefix, served(at))
    return died


@pytest.mark.ci
def test_every_boundary_of_a_first_install_then_of_an_upgrade(sites: tuple[Site, Path]) -> None:
    site, newer = sites
    died = kill_each(site, site.sim.source, lambda at: {OLD} if at == ("commit", AFTER) else {"", OLD})
    assert set(died) == without("packages", "trying")
    assert site.install().end == "good"
    assert check_tree(site.sim.prefix, {OLD}) == OLD
    # Only a release whose trial has begun stays; before that the host is back.
    died = kill_each(site, newer, lambda at: {NEW} if at == ("trying", AFTER) else {OLD})
    assert set(died) == without("packages", "commit")
    assert site.install(newer).end == "trying"
    assert check_tree(site.sim.prefix, {NEW}) == NEW


@pytest.mark.ci
def test_every_boundary_of_a_new_configuration_serves_the_old_one_or_the_new_one(sites: tuple[Site, Path]) -> None:
    site, newer = sites
    site.install(newer)
    clear_change(site.sim.prefix)  # the trial has ended well
    ports = []

    def served(at: Boundary) -> set[str]:
        ports.append(site.served_port())
        site.decide(9443)  # a boot has put the file of the old configuration back
        return {NEW}

    site.decide(9443)
    died = kill_each(site, newer, served)
    assert set(died) == without("packages", "bootstrap", "environment", "trying")
    # Before the commit a boot brings the old configuration back; after it, nothing does.
    assert ports == [8443] * (len(died) - 1) + [9443]
    assert site.install(newer).end == "good"
    assert site.served_port() == 9443
    site.sim.prefix.site_file.unlink()
    site.install(newer)


def failing(step: ChangeStep[InstallRun]) -> ChangeStep[InstallRun]:
    """A step that is done, and whose record then finds no room."""

    def run(state: InstallRun, record: StepRecord) -> None:
        step.run(state, record)
        raise OSError(errno.ENOSPC, "No space left on device")

    return replace(step, run=run)


@pytest.mark.ci
def test_disk_that_is_full_at_a_step_is_the_stated_code_and_the_next_run_goes_on(
    sites: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, newer = sites
    site.install()
    again = build_bundle(site.sim.workspace, "1.2.0", "three")
    assert check_tree(site.sim.prefix, {OLD}) == OLD
    clear_change(site.sim.prefix)
    for number, full in enumerate(WHOLE_INSTALL):
        if full.name in ("packages", "commit"):
            continue
        steps = (*WHOLE_INSTALL[:number], failing(full), *WHOLE_INSTALL[number + 1 :])
        monkeypatch.setattr(install_module, "WHOLE_INSTALL", steps)
        with pytest.raises(ApplyRestoredError, match=r"disk\.full") as caught:
            site.install(again)
        assert caught.value.exit_code == 7, full.name
        assert check_tree(site.sim.prefix, {OLD}) == OLD, full.name
        assert read_change(site.sim.prefix) is None, full.name
    monkeypatch.undo()


Change = Callable[[tuple[ChangeStep[InstallRun], ...]], tuple[ChangeStep[InstallRun], ...]]


def _marked_too_early(steps: tuple[ChangeStep[InstallRun], ...]) -> tuple[ChangeStep[InstallRun], ...]:
    def mark(run: InstallRun, record: StepRecord) -> None:
        (run.path / OK_FILE).touch()

    number = [step.name for step in steps].index("environment")
    return (*steps[:number], replace(steps[number], run=mark), *steps[number:])


def _renamed_without_a_record(steps: tuple[ChangeStep[InstallRun], ...]) -> tuple[ChangeStep[InstallRun], ...]:
    def switch(run: InstallRun, record: StepRecord) -> None:
        assert run.facts is not None
        complete(run.path, run.facts)
        point_at(run.host.prefix, target_of(run.host.prefix, run.path))

    return tuple(replace(step, run=switch) if step.name == "switch" else step for step in steps)


@pytest.mark.ci
@pytest.mark.parametrize("change", [_marked_too_early, _renamed_without_a_record])
def test_control_a_step_that_records_before_it_is_done_is_found(
    sites: tuple[Site, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    site, _ = sites
    site.install()
    clear_change(site.sim.prefix)
    fresh = build_bundle(site.sim.workspace, f"1.3.{len(change.__name__)}", change.__name__)
    with kept_tree(site.sim.prefix, tmp_path / "kept") as put_back:
        monkeypatch.setattr(install_module, "WHOLE_INSTALL", change(WHOLE_INSTALL))
        with pytest.raises((AssertionError, ApplianceError)):
            kill_each(site, fresh, lambda at: {fresh.name.partition("-")[2]} if at == ("trying", AFTER) else {OLD})
        put_back()
