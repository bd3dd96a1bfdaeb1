"""A disk that is full in any step: the stated code, reason and remedy, and what served before serves.

The cases are made from the steps themselves, so that a new one cannot be left out.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.change.step_runner import ChangeStep, StepRecord
from appliance.host.install import install as program
from appliance.host.install.install_run import InstallRun
from appliance.host.install.steps import WHOLE_INSTALL
from appliance.host.release.release import current_target
from signing.errors import ApplianceError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site

STEPS = {step.name: step for step in WHOLE_INSTALL}
ON_A_WHOLE_MACHINE = {"packages"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return new_site(tmp_path, monkeypatch)


def full(step: ChangeStep[InstallRun], *, has_worked: bool) -> ChangeStep[InstallRun]:
    """The step as it ends where the disk is full: before its first byte, or after its last one."""

    def run(state: InstallRun, record: StepRecord) -> None:
        if has_worked:
            step.run(state, record)
        raise OSError(errno.ENOSPC, "No space left on device")

    return replace(step, run=run)


def install_with(site: Site, monkeypatch: pytest.MonkeyPatch, name: str, *, has_worked: bool) -> ApplianceError:
    steps = tuple(full(step, has_worked=has_worked) if step.name == name else step for step in WHOLE_INSTALL)
    monkeypatch.setattr(program, "WHOLE_INSTALL", steps)
    with pytest.raises(ApplianceError) as caught:
        site.install(build_or_same(site))
    monkeypatch.setattr(program, "WHOLE_INSTALL", WHOLE_INSTALL)
    return caught.value


def build_or_same(site: Site) -> Path:
    path = site.sim.workspace.dist / "toy-1.1.0"
    return path if path.exists() else build_bundle(site.sim.workspace, "1.1.0", "two")


@pytest.mark.ci
def test_full_disk_in_each_step_is_reported_with_its_remedy_and_the_next_run_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install()
    site.decide(8443, good_after=0)  # so that the last step is part of the run
    before = current_target(site.sim.prefix)
    for name, step in STEPS.items():
        for has_worked in () if name in ON_A_WHOLE_MACHINE | {"trying"} else (False, True):
            error = install_with(site, monkeypatch, name, has_worked=has_worked)
            assert (error.code, error.exit_code) == ("disk.full", 1 if step.is_final else 7), name
            assert error.subject == str(site.sim.prefix.root), name
            assert "bytes free" in error.found, name
            assert error.hint.startswith("free some space there and run the same command again"), name
            if not step.is_final:
                assert f"step {name}" in error.expected
                assert current_target(site.sim.prefix) == before, name
                site.served_port()
    done = site.install(build_or_same(site))
    assert done.release.path.name.startswith("1.1.0-")
    assert current_target(site.sim.prefix) == f"releases/{done.release.path.name}"
