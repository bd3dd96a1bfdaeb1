"""T93: signatures in other formats by keys that sign no longer; roots that were never of this chain."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.builder.assembly.signature_refresh import refresh_signatures
from appliance.host.install.importer import accept, import_layout
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_pin import pin_root
from appliance.keys.rotation import Change, rotate
from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import ATTESTATIONS, Layout
from bundles.stick.writing.writer import write_stick
from signing.floors import Floors
from signing.verified import Evidence
from tests.attacks.harness import Answer, command, guard_off, refused, row
from tests.sim.people import ROOT, TARGETS, Ceremony, copied, finished
from tests.sim.tuf import STRANGERS, USUAL, TufRepository, key
from tests.toy import NOW, build_toy

ROW = row(93)
NEW = key("t93-newcomer")
GONE = TARGETS[0].public


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace of one bundle, which two of three people signed, in other formats too."""
    folder = tmp_path_factory.mktemp("rotated")
    ceremony = finished(folder)
    build_toy(ceremony.workspace.path)
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    return folder


@pytest.fixture
def ceremony(made: Path, tmp_path: Path) -> Ceremony:
    """A copy of it."""
    return copied(made, tmp_path / "copy")


def old_stick(ceremony: Ceremony) -> Path:
    """The bundle as it is on a stick that was written before the change; with the newest metadata."""
    return ceremony.workspace.dist / "toy-1.0.0"


def change_root(ceremony: Ceremony, change: Change) -> None:
    """The next root is in force, and all metadata with it; attestations lie there as before."""
    bundle = old_stick(ceremony)
    kept = {path: path.read_bytes() for path in (bundle / ATTESTATIONS).rglob("*.*")}
    rotate(ceremony.workspace, change, NOW)
    request = ceremony.collect("root-2", (*ROOT[:2], TARGETS[1], NEW))
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    for path, data in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def verify(ceremony: Ceremony, tmp_path: Path, *more: str) -> Answer:
    """`appliance verify` on a host that has pinned the newest root by its fingerprints."""
    prefix = Prefix.at(tmp_path / "host")
    pin_root(prefix, ceremony.workspace.root_file, [one.public.fingerprint for one in ROOT[:2]])
    return command("verify", old_stick(ceremony), "--prefix", prefix.root, *more)


def test_unattacked_signature_of_a_key_that_was_rotated_out_is_reported(ceremony: Ceremony, tmp_path: Path) -> None:
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    answer = verify(ceremony, tmp_path)
    assert answer.code == 0, answer.talk
    assert answer.out.count("not counted: attestations/") == 2
    assert answer.out.count(GONE.fingerprint) == 2


def test_unattacked_host_that_begins_with_the_older_root_sees_the_same(ceremony: Ceremony) -> None:
    first = ceremony.workspace.root_file.read_bytes()
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    for root in (first, ceremony.workspace.root_file.read_bytes()):
        found = open_bundle(old_stick(ceremony), root, Floors(), NOW)
        attested = check_all(Layout(old_stick(ceremony)), found)[0].attested
        assert sorted((one.counts, one.signer == GONE) for one in attested) == [(False, True)] * 2 + [(True, False)] * 2


def test_unattacked_old_stick_on_a_host_that_has_followed_the_rotation(ceremony: Ceremony, tmp_path: Path) -> None:
    """Its metadata, its root and its attestations are those of the day on which it was written."""
    old = shutil.copytree(old_stick(ceremony), tmp_path / "old")
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    prefix, root = Prefix.at(tmp_path / "host"), ceremony.workspace.root_file.read_bytes()
    prefix.create()
    found = open_bundle(old_stick(ceremony), root, Floors(), NOW)
    import_layout(Layout(old_stick(ceremony)), prefix.releases / "r", found, root, NOW)
    accept(prefix, found, root)
    answer = command("verify", old, "--prefix", prefix.root)
    assert answer.code == 0, answer.talk
    assert "notice: judged by the newest metadata that this host has stored" in answer.talk
    assert answer.out.count("not counted: attestations/") == 2


def test_unattacked_old_stick_on_a_host_that_has_followed_two_rotations(ceremony: Ceremony, tmp_path: Path) -> None:
    """It lacks the root between its own and the pinned one; the host's store has it."""
    old = shutil.copytree(old_stick(ceremony), tmp_path / "old")
    for label in ("root-2", "root-3"):
        rotate(ceremony.workspace, Change(), NOW)
        refresh_signatures(ceremony.workspace, ceremony.collect(label, ROOT[:2]), NOW)
    prefix, root = Prefix.at(tmp_path / "host"), ceremony.workspace.root_file.read_bytes()
    prefix.create()
    found = open_bundle(old_stick(ceremony), root, Floors(), NOW)
    import_layout(Layout(old_stick(ceremony)), prefix.releases / "r", found, root, NOW)
    accept(prefix, found, root)
    assert "2.root.json" not in {path.name for path in (old / "metadata").iterdir()}
    answer = command("verify", old, "--prefix", prefix.root)
    assert answer.code == 0, answer.talk
    answer = command("verify", old, "--trust", ceremony.workspace.root_file, "--prefix", tmp_path / "other")
    assert (answer.code, "write it again" in answer.talk) == (4, True), answer.talk


def test_unattacked_stick_is_written_again_after_a_key_was_revoked(ceremony: Ceremony, tmp_path: Path) -> None:
    """What the revoked key signed lies on the stick, and no longer in the bundle."""
    for change in (None, Change(revoke=(GONE.fingerprint,), add_targets=(NEW.public,))):
        if change is not None:
            rotate(ceremony.workspace, change, NOW)
            request = ceremony.collect("root-2", (*ROOT[:2], TARGETS[1], NEW))
            refresh_signatures(ceremony.workspace, request, NOW)
        found = open_bundle(old_stick(ceremony), ceremony.workspace.root_file.read_bytes(), Floors(), NOW)
        write_stick(Layout(old_stick(ceremony)), found, tmp_path / "stick")
    assert not list((tmp_path / "stick").rglob(f"{GONE.key_id}.*"))
    assert command("verify", tmp_path / "stick", "--trust", ceremony.workspace.root_file).code == 0


def test_attacked_with_an_old_stick_after_the_builders_key_was_replaced(ceremony: Ceremony, tmp_path: Path) -> None:
    """Its timestamp is by a key that may be stolen; what the same bundle carries today passes."""
    old = shutil.copytree(old_stick(ceremony), tmp_path / "old")
    rotate(ceremony.workspace, Change(new_builder=True), NOW)
    request = ceremony.collect("root-2", ROOT[:2])
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    assert verify(ceremony, tmp_path).code == 0
    answer = command("verify", old, "--prefix", tmp_path / "host")
    assert (answer.code, "timestamp.json" in answer.talk) == (4, True), answer.talk


def test_attacked_with_signatures_of_a_revoked_key(ceremony: Ceremony, tmp_path: Path) -> None:
    """Somebody with a stolen key can sign another statement in its name, and date it as they like."""
    change_root(ceremony, Change(revoke=(GONE.fingerprint,), add_targets=(NEW.public,)))
    answer = verify(ceremony, tmp_path)
    assert answer.code in ROW.exit
    assert answer.talk.count("signed by a revoked key (attestation.revoked-key)") == 2


def test_attacked_with_a_key_that_was_rotated_out_first_and_revoked_later(ceremony: Ceremony, tmp_path: Path) -> None:
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    rotate(ceremony.workspace, Change(revoke=(GONE.fingerprint,)), NOW)
    request = ceremony.collect("root-3", ROOT[:2])
    assert request.is_complete
    signed = sorted((old_stick(ceremony) / ATTESTATIONS).rglob(f"{GONE.key_id}.*"))
    kept = {path: path.read_bytes() for path in signed}
    assert sorted(refresh_signatures(ceremony.workspace, request, NOW).removed) == signed
    for path, data in kept.items():
        path.write_bytes(data)
    assert "attestation.revoked-key" in verify(ceremony, tmp_path).talk


def test_attacked_with_a_changed_signature_of_a_former_key(ceremony: Ceremony, tmp_path: Path) -> None:
    """It decides nothing, yet one that does not hold shows that somebody was at the stick."""
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    path = next((old_stick(ceremony) / ATTESTATIONS).rglob(f"{GONE.key_id}.dsse"))
    other = next((old_stick(ceremony) / ATTESTATIONS).rglob(f"{TARGETS[1].public.key_id}.dsse"))
    path.write_bytes(other.read_bytes())
    assert verify(ceremony, tmp_path).code in ROW.exit


def test_attacked_with_an_older_root_that_names_the_attackers_keys(ceremony: Ceremony) -> None:
    """A file beside the metadata would make strangers into former signers."""
    change_root(ceremony, Change(remove=(GONE.fingerprint,), add_targets=(NEW.public,)))
    (old_stick(ceremony) / "metadata" / "1.root.json").write_bytes(TufRepository(STRANGERS).pinned)
    root = ceremony.workspace.root_file.read_bytes()
    refused(
        ROW,
        lambda: open_bundle(old_stick(ceremony), root, Floors(), NOW),
        "root.not-of-this-chain",
        "1.root.json",
    )


def test_attacked_by_a_root_whose_people_take_a_revocation_back(tmp_path: Path) -> None:
    repository = TufRepository()
    gone = USUAL.targets[2].public.key_id
    people = replace(USUAL, targets=(*USUAL.targets[:2], NEW))
    repository.rotate(people)
    repository.edit("2.root.json", lambda signed: signed.update({"x-appliance-revoked-keys": [gone]}), USUAL.root[:2])
    repository.rotate(USUAL)
    assert gone in repository.walk().revoked


def test_unguarded_signature_of_a_revoked_key_passes(ceremony: Ceremony, tmp_path: Path) -> None:
    change_root(ceremony, Change(revoke=(GONE.fingerprint,), add_targets=(NEW.public,)))

    def signer(key_id: str, _evidence: Evidence, _path: str) -> tuple[object, bool]:
        return next(one.public for one in TARGETS if one.public.key_id == key_id), True

    with guard_off(ROW.guard, signer):
        assert verify(ceremony, tmp_path).code == 0
