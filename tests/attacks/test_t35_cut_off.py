"""T35: a power cut, a kill or a full disk at any step of an install. `tests/appliance/host/install/test_kills.py` has
every boundary; here are the worst ones."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.host.change.step_runner import AFTER, BEFORE, StepRecord
from appliance.host.install import install as install_module
from appliance.host.install.install_run import InstallRun
from appliance.host.install.steps import WHOLE_INSTALL
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site
from tests.attacks.harness import guard_off, refused, row
from tests.sim.kills import check_tree, kept_tree, run_killed

ROW = row(35)
BOUNDARIES = [(step.name, when) for step in WHOLE_INSTALL for when in (BEFORE, AFTER)]
SWITCHED = ("switch", AFTER)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """A host that serves one release, and a newer bundle of which all but the switch is done."""
    with pytest.MonkeyPatch.context() as patch:
        site = new_site(tmp_path_factory.mktemp("host"), patch)
        site.install()
        newer = build_bundle(site.sim.workspace, "1.1.0", "two")
        site.install(newer, is_staging=True)
        yield site, newer


@pytest.fixture
def cut(base: tuple[Site, Path], tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    with kept_tree(base[0].sim.prefix, tmp_path / "kept") as put_back:
        yield base
        put_back()


def kill_after_the_switch(site: Site, source: Path) -> None:
    at = run_killed(lambda hook: site.install(source, on_boundary=hook), BOUNDARIES, BOUNDARIES.index(SWITCHED))
    assert at == SWITCHED
    assert site.release.name.startswith("1.1.0-"), "users have not reached it yet"


def fail_the_next(site: Site, source: Path) -> None:
    """The next install fails early: what serves then is what the kill has left."""
    site.sim.prefix.site_file.write_text("port: nonsense\n")
    site.install(source)


def test_unattacked_an_upgrade_serves_and_is_on_trial(cut: tuple[Site, Path]) -> None:
    site, newer = cut
    assert site.install(newer).end == "trying"
    assert check_tree(site.sim.prefix, {"1.1.0"}) == "1.1.0"


def test_attacked_by_a_kill_between_the_switch_and_the_gate(cut: tuple[Site, Path]) -> None:
    site, newer = cut
    kill_after_the_switch(site, newer)
    with pytest.raises(Exception, match="nonsense"):
        fail_the_next(site, newer)
    assert check_tree(site.sim.prefix, {"1.0.0"}) == "1.0.0"


def test_attacked_by_a_disk_that_is_full_after_the_switch(
    cut: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, newer = cut

    def full(_run: InstallRun, _record: StepRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    steps = tuple(replace(step, run=full) if step.name == "gate" else step for step in WHOLE_INSTALL)
    monkeypatch.setattr(install_module, "WHOLE_INSTALL", steps)
    refused(ROW, lambda: site.install(newer), "disk.full", str(site.sim.prefix.root))
    assert check_tree(site.sim.prefix, {"1.0.0"}) == "1.0.0"


def test_unguarded_a_release_that_nobody_has_reached_goes_on_serving(cut: tuple[Site, Path]) -> None:
    site, newer = cut
    kill_after_the_switch(site, newer)
    with guard_off(ROW.guard, lambda *_: None), pytest.raises(Exception, match="nonsense"):
        fail_the_next(site, newer)
    assert site.release.name.startswith("1.1.0-")
