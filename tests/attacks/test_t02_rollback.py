"""T2: an older bundle, under metadata that is older than what this host has accepted, or that has withdrawn it."""

from __future__ import annotations

from pathlib import Path

from appliance.host.floorstore import write_floors, write_root
from appliance.host.prefix import Prefix
from signing.floors import Floors
from tests.attacks.harness import Stick, guard_off, refused, row

ROW = row(2)


def accept_newer(stick: Stick) -> Floors:
    """The floors of a host that has seen newer metadata than what then lies on the stick again."""
    older = dict(stick.repository.files)
    stick.publish()
    floors = stick.verify().evidence.floors
    stick.repository.files = older
    stick.save()
    return floors


def host_with(floors: Floors, stick: Stick, folder: Path) -> Path:
    """A host that has pinned the stick's root and stands at these floors."""
    prefix = Prefix.at(folder / "host")
    prefix.create()
    write_root(prefix, stick.root)
    write_floors(prefix, floors)
    return prefix.root


def test_unattacked_newest_metadata_verifies_again_and_again(stick: Stick, tmp_path: Path) -> None:
    floors = stick.verify().evidence.floors
    assert stick.command("--prefix", host_with(floors, stick, tmp_path)).code == 0


def test_attacked_by_metadata_below_the_floors(stick: Stick, tmp_path: Path) -> None:
    floors = accept_newer(stick)
    refused(ROW, lambda: stick.verify(floors), "version.rollback", "timestamp.json")
    assert stick.command("--prefix", host_with(floors, stick, tmp_path)).code == 4


def test_attacked_by_older_targets_alone(stick: Stick) -> None:
    floors = Floors(targets=accept_newer(stick).targets)
    refused(ROW, lambda: stick.verify(floors), "version.rollback", "2.targets.json")


def test_attacked_by_a_bundle_that_the_newest_metadata_withdrew(stick: Stick) -> None:
    stick.publish("allowed")
    stick.verify()
    stick.publish("revoked")
    refused(ROW, stick.verify, "target.revoked", "bundles/toy/1.0.0/manifest.json")


def test_unguarded_the_older_metadata_is_believed(stick: Stick) -> None:
    floors = accept_newer(stick)
    with guard_off(ROW.guard, lambda *_: None):
        stick.verify(floors)
