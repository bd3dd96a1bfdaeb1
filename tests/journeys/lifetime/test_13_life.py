"""A host, lived with: installed, installed again, upgraded by a small stick, returned by itself, and rolled back."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.files_digest import differences
from tests.journeys.conftest import TwoSystems
from tests.journeys.lifetime.life import Answer, Machine, Versions, build_versions, delta_stick, gateway_of, machine

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(600)]

COUNTING = "port: 8443\negress: count\n"
MAX_DELTA_BYTES = 1_500_000
KILLED = {"debian-12": ("environment", "candidate"), "debian-13": ()}
"""Steps of the upgrade in which the machine ends; one more, the switch, follows on both."""


@pytest.fixture(scope="module")
def versions(two_systems: TwoSystems, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    recipe = two_systems.bundle.parents[2] / "two-pythons.yaml"
    return build_versions(recipe, two_systems.bundle, tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module", params=["debian-12", "debian-13"])
def site(request: pytest.FixtureRequest, versions: Versions) -> Iterator[Machine]:
    with machine(versions, request.param) as made:
        yield made
        print(request.param, {name: round(seconds, 2) for name, seconds in made.seconds.items()})


@pytest.fixture(scope="module")
def delta(site: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stick with what the host lacks of the newer version, by the host's own receipt."""
    return delta_stick(site, tmp_path_factory.mktemp("delta"))


def check_answers(site: Machine, seen: list[Answer]) -> None:
    """Nobody was refused, and every answer came from one of both versions."""
    assert {one.status for one in seen} <= {200, 503}, [one for one in seen if one.status not in (200, 503)][:5]
    assert {one.release for one in seen if one.status == 200} <= {
        site.versions.old.manifest,
        site.versions.new.manifest,
    }


def test_fresh_host_installs_counts_its_attempts_and_answers(site: Machine) -> None:
    site.host.run(["mkdir", "-p", "/etc/appliance"])
    site.set_site(COUNTING)
    started = time.monotonic()
    site.install(site.plug("old", site.versions.old.folder))
    site.seconds["install"] = time.monotonic() - started
    assert site.serves() == site.versions.old.manifest
    assert site.attempts() == 0


def test_second_install_changes_nothing(site: Machine) -> None:
    answer = json.loads(site.install("/media/old").out)
    assert answer["ansible"]["changed"] == 0
    assert answer["was_complete"] is True


def test_plan_of_the_newer_version_predicts_its_files_and_changes_nothing(site: Machine) -> None:
    newer = site.plug("newer", site.versions.new.folder)
    plan = json.loads(site.type("plan", newer, "--json").out)["install"]
    assert plan["ansible"]["problem"] == ""
    predicted = {change["name"] for change in plan["ansible"]["changes"]}
    folder = f"/opt/appliance/releases/{plan['release']}/config"
    assert predicted == {
        f"{folder}/{name}"
        for name in (
            "egress.nft",
            "engine-smollm2-135m.json",
            "gateway.json",
            *(f"units/{unit}" for unit in plan["units"]),
        )
    }
    assert site.host.run(["test", "-e", folder], check=False).code == 1
    # The installed one is as it should be: a check of the same version finds nothing to change.
    plan = json.loads(site.type("plan", "/media/old", "--json").out)["install"]
    assert plan["ansible"] == {"changes": [], "problem": ""}


def test_machine_that_ends_during_an_upgrade_serves_the_older_version(site: Machine, delta: Path) -> None:
    assert sum(path.stat().st_size for path in delta.rglob("*") if path.is_file()) < MAX_DELTA_BYTES
    stick = site.plug("delta", delta)
    for step in KILLED[site.system]:
        site.killed_at(step, "install", stick, "--yes")
        assert site.await_serves() == site.versions.old.manifest, step


def test_newer_version_comes_on_a_small_stick_and_nobody_is_refused(site: Machine, delta: Path) -> None:
    with site.polled() as seen:
        site.timed("upgrade", "install", "/media/delta", "--yes")
        assert site.serves() == site.versions.new.manifest
    check_answers(site, seen)
    assert site.status()["version"] == "1.0.1"


def test_ordinary_reboot_does_not_return(site: Machine) -> None:
    site.host.stop()
    site.host.boot()
    assert site.await_serves() == site.versions.new.manifest


def test_person_goes_back_and_nobody_is_refused(site: Machine) -> None:
    with site.polled() as seen:
        started = time.monotonic()
        site.type("rollback")
        assert site.await_serves() == site.versions.old.manifest
        site.seconds["rollback"] = time.monotonic() - started
    check_answers(site, seen)
    assert site.status()["version"] == "1.0.0"


def test_upgrade_that_ends_in_its_switch_serves_one_version_whole(site: Machine) -> None:
    site.killed_at("switch", "install", "/media/delta", "--yes")
    assert site.await_serves() in (site.versions.old.manifest, site.versions.new.manifest)
    site.type("install", "/media/delta", "--yes")
    assert site.serves() == site.versions.new.manifest


def test_release_that_crashes_on_trial_returns_by_itself(site: Machine) -> None:
    new = site.release()
    site.crash(f"appliance-engine@{new.rpartition('-')[2]}-smollm2-135m.service", 5)
    started = time.monotonic()
    while site.release() == new:
        assert time.monotonic() < started + 60
        time.sleep(0.05)
    assert site.await_serves() == site.versions.old.manifest
    site.seconds["return after five crashes"] = time.monotonic() - started
    site.status()


def test_upgrade_whose_gate_fails_returns_by_itself(site: Machine) -> None:
    old = site.release()
    with gateway_of(site, old), site.polled() as seen:
        failed = site.timed("failed upgrade", "install", "/media/delta", "--yes", code=7)
        assert site.await_serves() == site.versions.old.manifest
    assert "gate.failed" in failed.err
    assert site.release() == old
    served = [one.time for one in seen if one.status == 200]
    site.seconds["longest wait during it"] = max(after - before for before, after in itertools.pairwise(served))
    site.status()


def test_configuration_is_applied_without_a_stick(site: Machine) -> None:
    site.host.yank()
    site.set_site(COUNTING + "slots: 2\n")
    site.timed("config apply", "config", "apply")
    assert site.serves() == site.versions.old.manifest
    site.status()


def test_cleaning_up_keeps_what_serves(site: Machine) -> None:
    site.type("gc")
    assert site.serves() == site.versions.old.manifest
    site.status()


def test_nothing_of_all_this_tried_to_reach_another_machine(site: Machine, tmp_path: Path) -> None:
    site.type("verify", "--evidence", "/root/today.json")
    site.host.get("/root/today.json", tmp_path / "today.json")
    site.host.run(["rm", "/root/today.json"])
    envelope = json.loads((tmp_path / "today.json").read_text())
    report = json.loads(base64.b64decode(envelope["payload"]))["report"]
    assert len(envelope["signatures"]) == 1
    assert (report["verified"], report["egress"]["services"], report["egress"]["others"]) == (True, 0, 0)
    assert report["egress"]["problems"] == []
    assert site.attempts() == 0


def test_uninstall_leaves_the_machine_as_it_was(site: Machine) -> None:
    site.type("uninstall", "--purge", "--yes")
    changed = differences(site.before, site.host.files())
    assert [path for path in changed if "appliance" in path] == []
    assert "appliance" not in site.host.run(["getent", "passwd"]).out + site.host.run(["getent", "group"]).out
    assert site.host.run(["systemctl", "list-unit-files", "--no-legend", "appliance*"], check=False).out == ""
    assert "appliance_egress" not in site.host.run(["nft", "list", "tables"]).out
