"""T122: a host goes back to a release that newer metadata have revoked, by a program that cannot read metadata."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.host.activation.switch import point_at
from appliance.host.change.rollback_program import rollback_program
from appliance.host.change.way_back import point_previous
from appliance.host.install.importer import accept
from appliance.host.layout.places import REVOKED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.release.release_check import check_release
from appliance.keys.publication import revoke
from tests.appliance.sim_host import SimHost, build_bundle, new_host
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(122)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimHost, str, str]:
    """A host with two releases, of which the newer serves."""
    host = new_host(tmp_path_factory.mktemp("t122"))
    old = host.install().path.name
    host.source = build_bundle(host.workspace, "2.0.0", "two")
    new = host.install().path.name
    point_previous(host.prefix, f"releases/{old}")
    return host, old, new


def go_back(prefix: Prefix, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(rollback_program(prefix)), *words], capture_output=True, text=True)


def serves(prefix: Prefix) -> str:
    return prefix.current.resolve().name


def accept_next_stick(host: SimHost, version: str) -> None:
    """What an install does first: it stores the metadata of a stick."""
    stick = SimHost(host.prefix, host.workspace, build_bundle(host.workspace, version, version))
    accept(host.prefix, stick.verify(), stick.trust)


def revoke_old(host: SimHost, old: str) -> None:
    revoke(host.workspace, "toy", old.rpartition("-")[0], NOW)


def test_unattacked_host_goes_back_and_forth(made: tuple[SimHost, str, str]) -> None:
    host, old, new = made
    accept_next_stick(host, "3.0.0")
    done = go_back(host.prefix)
    assert (done.returncode, serves(host.prefix)) == (0, old), done.stderr
    check_release(open_current(host.prefix, NOW))
    assert go_back(host.prefix).returncode == 0
    assert serves(host.prefix) == new
    check_release(open_current(host.prefix, NOW))


def test_unguarded_the_script_goes_back_and_the_metadata_refuse(made: tuple[SimHost, str, str]) -> None:
    """The second guard: what starts the services of a release verifies it by the stored metadata."""
    host, old, new = made
    revoke_old(host, old)
    with guard_off(ROW.guard, lambda *_: ()):
        accept_next_stick(host, "4.0.0")
    assert go_back(host.prefix, old).returncode == 0
    refused(ROW, lambda: open_current(host.prefix, NOW), "target.revoked", "bundles/toy/1.0.0/manifest.json")
    point_at(host.prefix, f"releases/{new}")


def test_attacked_by_the_release_that_a_stick_has_revoked(made: tuple[SimHost, str, str]) -> None:
    host, old, new = made
    revoke_old(host, old)
    accept_next_stick(host, "5.0.0")
    assert [path.parent.name for path in host.prefix.releases.glob(f"*/{REVOKED_FILE}")] == [old]
    done = go_back(host.prefix, old)
    assert done.returncode in ROW.exit
    assert f"error: {old}: revoked (release.revoked)" in done.stderr
    assert serves(host.prefix) == new
    # What serves is as it was: marks of others are no part of it.
    check_release(open_current(host.prefix, NOW))


def test_attacked_by_metadata_that_were_set_back_after_the_mark(made: tuple[SimHost, str, str], tmp_path: Path) -> None:
    """The mark stays, whatever the metadata of the release say."""
    host, old, new = made
    mark = host.prefix.releases / new / REVOKED_FILE
    mark.write_bytes(b"")
    try:
        refused(ROW, lambda: check_release(open_current(host.prefix, NOW)), "release.marked", f"{new}/{REVOKED_FILE}")
    finally:
        shutil.move(mark, tmp_path / "mark")
