"""However an install ends, a complete release serves: the old one with its old configuration, or the new one."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.host.change.change_file import read_change
from appliance.host.change.journal import Journal
from appliance.host.install import install as install_module
from appliance.host.install import steps
from appliance.host.install.switching import switch_release
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.playbook.ansible_run import PlaybookCounts
from appliance.host.preflight.inputs import SourceMedia
from appliance.host.release.release import current_target
from appliance.host.site.config import read_site
from bundles.bootstrap_set import bootstrap_root
from bundles.oci.layout import blob_path
from signing.errors import ApplianceError, ApplyRestoredError, DriftError, HostUnfitError, UsageError
from tests.appliance.sim_host import build_bundle
from tests.appliance.sim_site import Site, Step, new_site, render


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return new_site(tmp_path, monkeypatch)


def refuse() -> None:
    raise ApplianceError("systemd.failed", "systemctl stop", expected="systemd to do so", found="a timeout")


def terminate() -> None:
    raise SystemExit(143)


def test_install_succeeds_and_a_second_one_tries_no_candidate(site: Site) -> None:
    older = bootstrap_root(site.sim.prefix.root) / ("0" * 12)
    older.mkdir(parents=True)
    assert site.install().answer == "Paris"
    assert not older.exists(), "the program of a bundle that does not serve"
    assert site.services.names() == ["try_candidate", "enable", "follow", "retire"]
    assert site.install().was_complete
    assert site.services.names() == ["enable", "follow", "retire"]


@pytest.mark.parametrize("staged", [refuse, pytest.param(terminate, marks=pytest.mark.ci)])
def test_failed_gate_restores_the_link_before_the_services(site: Site, staged: Step) -> None:
    site.install()
    before = current_target(site.sim.prefix)
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    site.services.staged["follow"] = staged
    with pytest.raises((ApplyRestoredError, SystemExit)):
        site.install(newer)
    assert site.services.calls[-1] == ("restore", before)
    assert current_target(site.sim.prefix) == before
    assert site.served_port() == 8443


@pytest.mark.parametrize("staged", [refuse, pytest.param(terminate, marks=pytest.mark.ci)])
def test_failure_after_users_reach_the_new_release_keeps_it(site: Site, staged: Step) -> None:
    site.install()
    site.decide(8443, good_after=0)
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    site.services.staged["retire"] = staged
    with pytest.raises((ApplianceError, SystemExit)):
        site.install(newer)
    assert "restore" not in site.services.names()
    assert site.release.name.startswith("1.1.0-")
    site.decide(9443, good_after=0)
    with pytest.raises((ApplianceError, SystemExit)):
        site.install(newer)
    assert site.served_port() == 9443


@pytest.mark.parametrize(
    ("step", "code"),
    [pytest.param("switch", 7, marks=pytest.mark.ci), pytest.param("gate", 7, marks=pytest.mark.ci), ("commit", 1)],
)
def test_disk_that_is_full_when_a_step_is_recorded_is_reported_by_what_serves_then(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    site.install()
    before = current_target(site.sim.prefix)
    site.decide(8443, good_after=0)
    newer = build_bundle(site.sim.workspace, "1.1.0", "two")
    write = Journal.write

    def full(journal: Journal, release: str, name: str, state: str, note: str = "") -> None:
        if (name, state) == (step, "done"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, release, name, state, note)

    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(ApplianceError) as caught:
        site.install(newer)
    assert caught.value.exit_code == code
    if code == 7:
        assert site.services.calls[-1] == ("restore", before)
        assert current_target(site.sim.prefix) == before
    else:
        assert caught.value.code == "disk.full"
        assert site.release.name.startswith("1.1.0-")


@pytest.mark.ci
def test_configuration_that_failed_while_a_release_was_repaired_is_not_accepted_the_next_time(site: Site) -> None:
    site.install()
    site.damage()
    site.decide(9443)
    site.services.staged["try_candidate"] = refuse
    with pytest.raises(ApplianceError):
        site.install()
    assert site.served_port() == 8443
    with pytest.raises(ApplianceError):
        site.install()
    assert site.services.names() == ["try_candidate", "restore"]


@pytest.mark.ci
def test_candidate_of_an_interrupted_run_is_tried_although_the_next_run_failed_early(site: Site) -> None:
    site.install()
    site.decide(9443)

    written: dict[Path, bytes] = {}

    def cut() -> None:
        written.update({path: path.read_bytes() for path in site.release.rglob("*.json")})
        raise KeyboardInterrupt

    site.services.staged["try_candidate"] = cut
    with pytest.raises(KeyboardInterrupt):
        site.install()
    # After a power cut nothing is restored.
    for path, data in written.items():
        path.write_bytes(data)
    (site.sim.prefix.etc / "site.yaml").write_text("port: nonsense\n")
    with pytest.raises(ApplianceError):
        site.install()
    site.decide(9443)
    del site.services.staged["try_candidate"]
    done = site.install()
    assert done.interrupted is not None
    assert done.interrupted.step == "candidate"
    assert done.answer == "Paris"


def test_decision_about_a_model_that_the_bundle_lacks_is_refused_before_anything_is_written(site: Site) -> None:
    prefix = site.sim.prefix
    prefix.etc.mkdir(parents=True)
    prefix.site_file.write_text("models: {gone: {pin: true}}\n")
    with pytest.raises(UsageError) as caught:
        site.install()
    assert caught.value.subject.endswith("field models.gone")
    assert [path for path in prefix.root.rglob("*") if path.is_file()] == [prefix.site_file]


@pytest.mark.parametrize("name", ["config/engine-other.json", "config/.gateway.json.partial"])
def test_stray_file_among_rendered_ones_is_removed_and_the_release_is_right_again(site: Site, name: str) -> None:
    site.install()
    (site.release / name).write_text("{}")
    done = site.install()
    assert any(name in warning for warning in done.warnings)
    assert not (site.release / name).exists()
    assert site.served_port() == 8443


@pytest.mark.parametrize("has_compared", [False, True])
def test_gate_compares_the_release_unless_a_gateway_was_started_that_does(site: Site, has_compared: bool) -> None:
    site.services.has_compared = has_compared
    site.services.staged["follow"] = site.damage
    if has_compared:
        site.install()
        return
    with pytest.raises(ApplyRestoredError, match=r"gate\.failed"):
        site.install()
    assert current_target(site.sim.prefix) is None


@pytest.mark.ci
@pytest.mark.parametrize("name", ["playbooks/site.yml", "config/gateway.json", "RELEASE.json"])
def test_folder_in_the_place_of_a_file_is_removed_and_the_file_made_again(site: Site, name: str) -> None:
    site.install()
    (site.release / name).unlink()
    (site.release / name / "below").mkdir(parents=True)
    (site.release / name / "below" / "x").touch()
    done = site.install()
    assert name in " ".join(done.warnings)
    assert site.served_port() == 8443


@pytest.mark.ci
def test_older_stick_is_reported_by_an_install_that_changes_nothing(site: Site) -> None:
    older = site.sim.source
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    for _ in range(2):
        done = site.install(older)
        [notice] = [warning for warning in done.warnings if warning.startswith("judged by the newest metadata")]
        assert "version.rollback" in notice
    assert done.was_complete


def test_damaged_blob_is_taken_from_another_stick_with_a_warning(site: Site, tmp_path: Path) -> None:
    other = Path(shutil.copytree(site.sim.source, tmp_path / "other"))
    chunk = site.sim.verify().value.contents.of_kind("wheel")[0].chunks[0]
    (site.sim.source / blob_path(chunk.sha256)).write_bytes(b"E" * chunk.size)
    done = site.install(SourceMedia((site.sim.source, other)))
    [warning] = [one for one in done.warnings if blob_path(chunk.sha256) in one]
    assert warning.startswith(f"{site.sim.source} is damaged: ")
    assert f"came from {other}; " in warning
    assert site.served_port() == 8443


def test_folder_in_the_place_of_current_is_drift_and_left_alone(site: Site) -> None:
    site.install()
    current = site.sim.prefix.current
    current.unlink()
    current.mkdir()
    (current / "precious").touch()
    for act in (site.install, site.served_port):
        with pytest.raises(ApplianceError) as caught:
            act()
        assert (caught.value.code, caught.value.exit_code) == ("release.current", 9)
    assert (current / "precious").exists()


def test_copy_of_a_prefix_is_made_right_by_the_same_install(site: Site, tmp_path: Path) -> None:
    site.install()
    copy = Prefix.at(Path(shutil.copytree(site.sim.prefix.root, tmp_path / "copy", symlinks=True)))
    site.sim.prefix = site.services.host = copy
    with pytest.raises(DriftError, match="config/engine-toy.json"):
        site.served_port()
    assert any("config/engine-toy.json" in warning for warning in site.install().warnings)
    assert site.served_port() == 8443


def test_release_keeps_the_site_file_that_was_applied_to_it(site: Site) -> None:
    site.install()
    site.decide(9443)
    site.install()
    older = site.release
    assert (older / "site.yaml").read_text() == "port: 9443\n"
    site.decide(9444)
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert (site.release / "site.yaml").read_text() == "port: 9444\n"
    assert (older / "site.yaml").read_text() == "port: 9443\n"


def test_site_file_that_is_edited_during_an_install_is_not_taken_for_the_applied_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install()
    site.decide(9443)

    def render_and_edit(*arguments: Any) -> PlaybookCounts:
        played = render(*arguments)
        site.decide(9444)
        return played

    monkeypatch.setattr(steps, "render", render_and_edit)
    assert site.install().release.facts.site != read_site(site.sim.prefix.site_file).digest
    assert (site.release / "site.yaml").read_text() == "port: 9443\n"
    assert site.served_port() == 9443


def test_failed_change_of_the_site_leaves_the_copy_that_the_release_serves_with(site: Site) -> None:
    site.install()
    assert (site.release / "site.yaml").read_bytes() == b""
    site.decide(9443)
    site.services.staged["try_candidate"] = refuse
    with pytest.raises(ApplianceError):
        site.install()
    assert (site.release / "site.yaml").read_bytes() == b""
    assert site.served_port() == 8443


def test_release_of_before_has_no_copy_and_a_failed_install_leaves_none(site: Site) -> None:
    site.install()
    (site.release / "site.yaml").unlink()
    assert site.served_port() == 8443
    site.decide(9443)
    site.services.staged["try_candidate"] = refuse
    with pytest.raises(ApplianceError):
        site.install()
    assert site.served_port() == 8443
    assert not (site.release / "site.yaml").exists()


def test_last_good_release_is_good_at_once_when_it_replaces_one_on_trial(site: Site) -> None:
    """Else a fault of it would return to a release that was never good."""
    site.install()
    good = site.release
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    assert site.install().end == "good"
    assert (site.release, read_change(site.sim.prefix)) == (good, None)


def test_trial_is_watched_again_after_another_install_failed_beside_it(site: Site) -> None:
    """The watch ends when it reads the record of another change; a trial without a watch would never end."""
    site.install()
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"))
    on_trial = read_change(site.sim.prefix)
    assert on_trial is not None
    newest = build_bundle(site.sim.workspace, "1.2.0", "three")
    site.services.staged["try_candidate"] = refuse
    with pytest.raises(ApplianceError):
        site.install(newest)
    assert site.services.names() == ["try_candidate", "restore"], "nothing has replaced the record"
    site.services.staged = {"follow": refuse}
    with pytest.raises(ApplyRestoredError):
        site.install(newest)
    assert site.services.names()[-2:] == ["restore", "watch"]
    assert read_change(site.sim.prefix) == on_trial


def test_older_stick_is_refused_when_another_install_switched_while_it_waited(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install()
    # The host knows the metadata of the newer stick already, so nothing new comes with it meanwhile.
    site.install(build_bundle(site.sim.workspace, "1.1.0", "two"), is_staging=True)
    machine = replace(site.machine, may_go_back=False)

    @contextmanager
    def meanwhile(prefix: Prefix) -> Iterator[int]:
        monkeypatch.setattr(install_module, "hold", hold)
        switch_release(None, machine)
        with hold(prefix) as lock:
            yield lock

    monkeypatch.setattr(install_module, "hold", meanwhile)
    with pytest.raises(HostUnfitError, match=r"install\.older"):
        install_module.install(site.sim.source, site.sim.trust, machine)
    assert site.release.name.startswith("1.1.0-")
