"""A host, lived with: installed, installed again, upgraded by a small stick, returned by itself, and rolled back."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import TwoSystems
from tests.journeys.life import Machine, Versions, build_versions, machine, run

pytestmark = [pytest.mark.bed, pytest.mark.ci, pytest.mark.timeout(600)]

COUNTING = "port: 8443\negress: count\n"
MAX_RETURN_S = 5.0
MAX_DELTA_BYTES = 1_500_000


@pytest.fixture(scope="module")
def versions(two_systems: TwoSystems, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return build_versions(two_systems, tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module", params=["debian-12", "debian-13"])
def site(request: pytest.FixtureRequest, versions: Versions) -> Iterator[Machine]:
    with machine(versions, request.param) as made:
        yield made
        print({name: round(seconds, 2) for name, seconds in made.seconds.items()})


def test_fresh_host_installs_counts_its_attempts_and_answers(site: Machine) -> None:
    site.host.run(["mkdir", "-p", "/etc/appliance"])
    site.set_site(COUNTING)
    started = time.monotonic()
    site.install(site.plug("old", site.versions.old.folder))
    site.seconds["install"] = time.monotonic() - started
    assert site.serves() == site.versions.old.manifest
    status = site.status()
    assert (status["egress"]["services"], status["egress"]["others"]) == (0, 0)


def test_second_install_changes_nothing(site: Machine) -> None:
    answer = json.loads(site.install("/media/old").out)
    assert answer["ansible"]["changed"] == 0
    assert answer["was_complete"] is True


def test_newer_version_comes_on_a_small_stick_and_no_request_is_lost(site: Machine, tmp_path: Path) -> None:
    site.host.run(["mkdir", "-p", "/root/courier"])
    receipt = str(json.loads(site.type("receipt", "write", "/root/courier", "--yes", "--json").out)["path"])
    site.host.get(receipt, tmp_path / "receipt")
    workspace, stick = site.versions.workspace, tmp_path / "stick"
    key = json.loads(site.type("trust", "show", "--json").out)["host_key"]
    run("receipt", "read", tmp_path / "receipt", "--fingerprint", key, "--workspace", workspace)
    run("stick", "write", site.versions.new.folder, stick, "--since", tmp_path / "receipt", "--workspace", workspace)
    assert sum(path.stat().st_size for path in stick.rglob("*") if path.is_file()) < MAX_DELTA_BYTES
    with site.polled() as seen:
        started = time.monotonic()
        site.type("install", site.plug("delta", stick), "--yes")
        site.seconds["upgrade"] = time.monotonic() - started
        assert site.serves() == site.versions.new.manifest
    assert {one.release for one in seen if one.status == 200} == {
        site.versions.old.manifest,
        site.versions.new.manifest,
    }
    assert {one.status for one in seen} <= {200, 503}
    assert site.status()["version"] == "1.0.1"


def test_nothing_of_all_this_tried_to_reach_another_machine(site: Machine, tmp_path: Path) -> None:
    site.type("verify", "--evidence", "/root/today.json")
    site.host.get("/root/today.json", tmp_path / "today.json")
    envelope = json.loads((tmp_path / "today.json").read_text())
    report = json.loads(base64.b64decode(envelope["payload"]))["report"]
    assert len(envelope["signatures"]) == 1
    assert (report["verified"], report["egress"]["services"], report["egress"]["others"]) == (True, 0, 0)
    assert report["egress"]["problems"] == []
