"""Signatures in other people's formats come back into exactly the bundles that they are about."""

from __future__ import annotations

from pathlib import Path

from appliance.builder.assembly.signature_refresh import refresh_signatures
from appliance.keys.rotation import Change, rotate
from appliance.keys.signature_requests.request import Request
from appliance.keys.workspace import Workspace
from bundles.bundle import open_bundle
from bundles.chunks.check import check_all
from bundles.oci.layout import ATTESTATIONS, Layout
from signing.floors import Floors
from tests.sim.people import ROOT, TARGETS, finished
from tests.sim.tuf import Keys, keys
from tests.toy import NOW, build_toy


def attested(workspace: Workspace, version: str = "1.0.0") -> list[bool]:
    """For each signature that lies in a bundle, which verifies: whether it counts."""
    layout = Layout(workspace.dist / f"toy-{version}")
    found = open_bundle(layout.path, workspace.root_file.read_bytes(), Floors(), NOW)
    return [one.counts for one in check_all(layout, found)[0].attested]


def replace_targets_people(workspace: Workspace, people: Keys, *, is_revoked: bool) -> Request:
    gone = tuple(one.public.fingerprint for one in TARGETS)
    added = tuple(one.public for one in people)
    change = Change(revoke=gone, add_targets=added) if is_revoked else Change(remove=gone, add_targets=added)
    return rotate(workspace, change, NOW)


def test_two_bundles_that_were_signed_in_one_round_have_each_their_own(tmp_path: Path) -> None:
    ceremony = finished(tmp_path)
    build_toy(ceremony.workspace.path)
    build_toy(ceremony.workspace.path, "2.0.0", "another note")
    request = ceremony.collect("targets-2", TARGETS[:2])
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    assert [attested(ceremony.workspace, version) for version in ("1.0.0", "2.0.0")] == [[True] * 4] * 2


def test_signatures_of_people_who_were_rotated_out_stay_and_do_not_count(tmp_path: Path) -> None:
    ceremony, people = finished(tmp_path), keys("newcomer", 3)
    build_toy(ceremony.workspace.path)
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    assert attested(ceremony.workspace) == [True] * 4
    replace_targets_people(ceremony.workspace, people, is_revoked=False)
    request = ceremony.collect("root-2", (*ROOT[:2], *people[:2]))
    assert request.is_complete
    assert refresh_signatures(ceremony.workspace, request, NOW).removed == ()
    assert attested(ceremony.workspace) == [False] * 4
    build_toy(ceremony.workspace.path)
    assert attested(ceremony.workspace) == [False] * 4


def test_signatures_of_revoked_people_are_removed_by_name_and_never_come_back(tmp_path: Path) -> None:
    ceremony, people = finished(tmp_path), keys("newcomer", 3)
    build_toy(ceremony.workspace.path)
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    before = sorted((ceremony.workspace.dist / "toy-1.0.0" / ATTESTATIONS).rglob("*.*"))
    replace_targets_people(ceremony.workspace, people, is_revoked=True)
    request = ceremony.collect("root-2", (*ROOT[:2], *people[:2]))
    assert sorted(refresh_signatures(ceremony.workspace, request, NOW).removed) == before
    assert attested(ceremony.workspace) == []
    build_toy(ceremony.workspace.path)
    assert attested(ceremony.workspace) == []


def test_damaged_bundle_does_not_keep_another_from_its_signatures(tmp_path: Path) -> None:
    ceremony = finished(tmp_path)
    _, damaged = build_toy(ceremony.workspace.path)
    build_toy(ceremony.workspace.path, "2.0.0", "another note")
    for blob in (damaged / "blobs/sha256").iterdir():
        blob.write_bytes(b"spoiled")
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    assert attested(ceremony.workspace, "2.0.0") == [True] * 4
