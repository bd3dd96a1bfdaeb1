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


def signatures(workspace: Workspace, version: str = "1.0.0") -> int:
    """How many lie in a bundle, which verifies."""
    layout = Layout(workspace.dist / f"toy-{version}")
    found = open_bundle(layout.path, workspace.root_file.read_bytes(), Floors(), NOW)
    check_all(layout, found)
    return len(list(layout.medium.walk(ATTESTATIONS)))


def replace_everybody(workspace: Workspace, people: Keys) -> Request:
    gone = tuple(one.public.fingerprint for one in TARGETS)
    return rotate(workspace, Change(remove=gone, add_targets=tuple(one.public for one in people)), NOW)


def test_two_bundles_that_were_signed_in_one_round_have_each_their_own(tmp_path: Path) -> None:
    ceremony = finished(tmp_path)
    build_toy(ceremony.workspace.path)
    build_toy(ceremony.workspace.path, "2.0.0", "another note")
    request = ceremony.collect("targets-2", TARGETS[:2])
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    assert [signatures(ceremony.workspace, version) for version in ("1.0.0", "2.0.0")] == [4, 4]


def test_building_again_after_all_signers_were_replaced_brings_no_retired_signature_back(tmp_path: Path) -> None:
    ceremony, people = finished(tmp_path), keys("newcomer", 3)
    build_toy(ceremony.workspace.path)
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    assert signatures(ceremony.workspace) == 4
    replace_everybody(ceremony.workspace, people)
    request = ceremony.collect("root-2", (*ROOT[:2], *people[:2]))
    assert request.is_complete
    refresh_signatures(ceremony.workspace, request, NOW)
    assert signatures(ceremony.workspace) == 0
    build_toy(ceremony.workspace.path)
    assert signatures(ceremony.workspace) == 0


def test_damaged_bundle_does_not_keep_another_from_its_signatures(tmp_path: Path) -> None:
    ceremony = finished(tmp_path)
    _, damaged = build_toy(ceremony.workspace.path)
    build_toy(ceremony.workspace.path, "2.0.0", "another note")
    for blob in (damaged / "blobs/sha256").iterdir():
        blob.write_bytes(b"spoiled")
    refresh_signatures(ceremony.workspace, ceremony.collect("targets-2", TARGETS[:2]), NOW)
    assert signatures(ceremony.workspace, "2.0.0") == 4
