"""T2: an older bundle, under metadata that is older than what this host has accepted, or that has withdrawn it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import open_newest
from appliance.host.trust.trust_store import write_floors, write_root
from bundles.oci.layout import LAYOUT_BYTES, LAYOUT_FILE, target_name
from signing.floors import Floors
from tests.attacks.harness import Stick, guard_off, refused, row
from tests.sim.tuf import entry, key
from tests.toy import NOW

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


def test_attacked_by_a_builder_who_names_older_targets_again(stick: Stick) -> None:
    """The older targets file has its two signatures for ever; the stolen builder's key makes it the newest."""
    repository = stick.repository
    older = repository.files[repository.targets_name]
    stick.publish()
    floors = stick.verify().evidence.floors
    repository.put_targets(older, repository.targets_version - 1)
    stick.save()
    refused(ROW, lambda: stick.verify(floors), "version.rollback", "2.targets.json")


def test_attacked_by_old_content_under_a_new_version_that_one_of_two_signed(stick: Stick) -> None:
    repository = stick.repository
    stick.publish("revoked")
    floors = repository.walk().floors
    one = repository.people.targets[:1]
    revived = {target_name("toy", "1.0.0"): entry(stick.blob(stick.manifest).read_bytes())}
    repository.publish(revived, by=one)
    stick.save()
    refused(ROW, lambda: stick.verify(floors), "signature.threshold", repository.targets_name)


def test_attacked_by_a_root_before_the_rotation_that_threw_a_thief_out(stick: Stick) -> None:
    repository = stick.repository
    before = dict(repository.files)
    thief = repository.people.targets[2]
    repository.rotate(replace(repository.people, targets=(*repository.people.targets[:2], key("successor"))))
    stick.save()
    floors = stick.verify().evidence.floors
    assert floors.root == 2
    repository.files = before
    repository.targets_version, repository.snapshot_version, repository.root_version = 2, 2, 1
    repository.people = replace(repository.people, targets=(*repository.people.targets[:2], thief))
    stick.save()
    refused(ROW, lambda: stick.verify(floors), "version.rollback", "root.json")


def test_attacked_by_a_stick_from_before_a_revocation_that_the_host_has_stored(stick: Stick, tmp_path: Path) -> None:
    """A whole stick, older than the floors: the stored metadata of the host judge it (docs/architecture.md, Trust)."""
    prefix = Prefix(host_with(stick.verify().evidence.floors, stick, tmp_path))
    older = dict(stick.repository.files)
    stick.publish("revoked")
    stored = prefix.releases / "newer" / "bundle"
    stick.repository.write_to(stored / "metadata")
    (stored / LAYOUT_FILE).write_bytes(LAYOUT_BYTES)
    stick.repository.files = older
    stick.save()
    judge = partial(open_newest, stick.path, stick.root, Floors(), NOW, prefix)
    refused(ROW, judge, "target.revoked", "bundles/toy/1.0.0/manifest.json")
    (stored / "metadata" / "timestamp.json").unlink()
    assert judge().evidence.status == "current", "without the store nobody here knows of it"


def test_unguarded_the_older_metadata_is_accepted(stick: Stick) -> None:
    floors = accept_newer(stick)
    with guard_off(ROW.guard, lambda *_: None):
        stick.verify(floors)
