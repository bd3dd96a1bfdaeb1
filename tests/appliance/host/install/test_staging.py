"""A staged release serves nothing until the switch; the switch verifies it again and needs no stick."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from appliance.host.change.change_file import INSTALL, SWITCHING, TRYING, HostChange, read_change, write_change
from appliance.host.change.way_back import previous_target
from appliance.host.install.planning.install_plan import InstallResult
from appliance.host.install.switching import staged_releases, switch_release
from appliance.host.layout.places import OK_FILE, STAGED_FILE
from appliance.host.release.release import current_target
from signing.errors import ApplianceError, ApplyRestoredError, DamagedError, DriftError, UsageError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, new_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return new_site(tmp_path, monkeypatch)


def switch(site: Site, name: str | None = None, **options: Any) -> InstallResult:
    site.services.calls.clear()
    return switch_release(name, site.machine, **options)


def stage_newer(site: Site) -> Path:
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    done = site.install(newer, is_staging=True)
    assert done.end == "staged"
    shutil.rmtree(newer)
    return done.release.path


def test_staged_release_waits_and_the_switch_needs_no_stick(site: Site) -> None:
    assert site.install().end == "good"
    before = current_target(site.sim.prefix)
    path = stage_newer(site)
    assert site.services.names() == ["try_candidate", "end_candidate"]
    assert (path / STAGED_FILE).exists()
    assert not (path / OK_FILE).exists()
    assert current_target(site.sim.prefix) == before
    assert read_change(site.sim.prefix) is None
    assert previous_target(site.sim.prefix) is None
    done = switch(site)
    assert (done.end, done.release.path) == ("trying", path)
    assert site.services.names() == ["enable", "follow", "watch"]
    assert not (path / STAGED_FILE).exists()
    assert site.served_port() == 8443
    assert previous_target(site.sim.prefix) == before
    change = read_change(site.sim.prefix)
    assert change is not None
    assert (change.op, change.phase, change.release) == (INSTALL, TRYING, path.name)
    with pytest.raises(UsageError, match=r"switch\.not-staged.*the one that serves"):
        switch(site, path.name)


def test_first_install_can_be_staged_too_and_is_good_at_once(site: Site) -> None:
    assert site.install(is_staging=True).end == "staged"
    assert current_target(site.sim.prefix) is None
    assert switch(site).end == "good"
    assert site.served_port() == 8443
    assert read_change(site.sim.prefix) is None


def test_install_of_a_staged_release_copies_nothing_and_switches(site: Site) -> None:
    site.install(is_staging=True)
    done = site.install()
    assert (done.copied, done.was_complete, done.end) == (0, True, "good")
    assert not list(site.release.glob(STAGED_FILE))


@pytest.mark.ci
def test_what_cannot_be_switched_to_is_refused_before_anything_is_changed(site: Site) -> None:
    with pytest.raises(UsageError, match=r"switch\.not-staged"):
        switch(site)
    site.install()
    path = stage_newer(site)
    before = site.release
    with pytest.raises(UsageError, match=r"switch\.not-staged"):
        switch(site, "1.2.0-0123456789ab")
    site.decide(9443)
    with pytest.raises(DriftError, match=r"switch\.site-changed"):
        switch(site)
    site.sim.prefix.site_file.unlink()
    licence = path / "licences" / "toy" / "LICENSE"
    right = licence.read_bytes()
    licence.write_text("not free\n")
    with pytest.raises(DamagedError):
        switch(site)
    licence.write_bytes(right)
    assert site.release == before
    assert read_change(site.sim.prefix) is None
    assert switch(site).end == "trying"


def test_failed_gate_of_a_switch_returns_and_the_release_can_be_switched_to_by_an_install_only(site: Site) -> None:
    site.install()
    before = current_target(site.sim.prefix)
    stage_newer(site)

    def refuse() -> None:
        raise ApplianceError("service.not-running", "gateway", expected="an answer", found="none")

    site.services.staged["follow"] = refuse
    with pytest.raises(ApplyRestoredError, match=r"gate\.failed"):
        switch(site)
    assert current_target(site.sim.prefix) == before
    assert site.services.calls[-1] == ("restore", before)
    assert read_change(site.sim.prefix) is None
    assert previous_target(site.sim.prefix) is None
    assert staged_releases(site.sim.prefix) == ()


def test_release_whose_switch_was_cut_off_can_be_switched_to(site: Site) -> None:
    site.install()
    before, path = site.release.name, stage_newer(site)
    (path / STAGED_FILE).rename(path / OK_FILE)
    write_change(site.sim.prefix, HostChange(INSTALL, path.name, before, SWITCHING, "2026-01-31T12:00:00Z"))
    assert staged_releases(site.sim.prefix) == (path.name,)
    assert switch(site).end == "trying"
    assert site.release == path


def test_release_that_serves_is_not_staged_and_keeps_its_configuration(site: Site) -> None:
    """What a stage renders would be the configuration of a release whose services run with another one."""
    site.install()
    assert site.install(is_staging=True).end == "staged"
    assert read_change(site.sim.prefix) is None
    site.decide(9443)
    with pytest.raises(UsageError, match=r"stage\.serves.*another .*site\.yaml"):
        site.install(is_staging=True)
    assert site.services.names() == []
    assert read_change(site.sim.prefix) is None
    site.sim.prefix.site_file.unlink()
    assert site.served_port() == 8443
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    site.install(newer)
    on_trial = read_change(site.sim.prefix)
    site.install(newer, is_staging=True)
    site.damage()
    with pytest.raises(UsageError, match=r"stage\.serves.*licences"):
        site.install(newer, is_staging=True)
    assert read_change(site.sim.prefix) == on_trial


def test_release_that_serves_once_a_cut_off_switch_is_undone_is_not_staged(site: Site) -> None:
    site.install()
    before = site.release.name
    after = site.install(build_bundle(site.sim.workspace, "1.1.0", "two")).release.path.name
    cut_off = HostChange(INSTALL, after, before, SWITCHING, "2026-01-31T12:00:00Z")
    write_change(site.sim.prefix, cut_off)
    with pytest.raises(UsageError, match=r"stage\.serves"):
        site.install(is_staging=True)
    assert read_change(site.sim.prefix) == cut_off


def test_release_that_once_failed_can_be_staged_again_and_switched_to(site: Site) -> None:
    site.install()
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")

    def refuse() -> None:
        raise ApplianceError("service.not-running", "gateway", expected="an answer", found="none")

    site.services.staged["follow"] = refuse
    with pytest.raises(ApplyRestoredError, match=r"gate\.failed"):
        site.install(newer)
    site.services.staged.clear()
    site.decide(9443)
    path = site.install(newer, is_staging=True).release.path
    assert site.services.names() == ["try_candidate", "end_candidate"]
    assert staged_releases(site.sim.prefix) == (path.name,)
    assert switch(site).end == "trying"
    assert (site.release, site.served_port()) == (path, 9443)
    (path / STAGED_FILE).touch()
    assert staged_releases(site.sim.prefix) == (), "what serves waits for no switch"
