"""T39: a receipt that was forged, changed or made by another host, and one that its own host made false."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.keys.enrolled_hosts import accept_receipt, held_digests
from appliance.keys.signers.pem import PemKey
from appliance.keys.workspace import Workspace
from bundles.bundle import Bundle, open_bundle
from bundles.chunks.chunk import Chunk
from bundles.chunks.copy import copy_file
from bundles.contents.contents import File
from bundles.delta import delta, held_by
from bundles.oci.layout import Layout
from signing.digest import sha256
from signing.errors import DamagedError
from signing.floors import Floors
from signing.strictjson import to_file
from tests.attacks.harness import guard_off, refused, row
from tests.receipts import make_key, put_receipt, receipt_of
from tests.toy import NOW, build_toy

ROW = row(39)


class Site:
    """A workspace with a bundle, and a host that is enrolled there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace, self.path = build_toy(folder / "workspace")
        self.key = make_key(folder)
        accept_receipt(self.receipt(0), self.workspace, self.key.public.fingerprint)

    @property
    def bundle(self) -> Bundle:
        return open_bundle(self.path, self.workspace.root_file.read_bytes(), Floors(), NOW).value

    def receipt(self, number: int, key: PemKey | None = None, *bundles: Bundle) -> Path:
        signer = key or self.key
        return put_receipt(self.folder, signer, receipt_of(signer, *bundles, counter=number + 1))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("t39"))


def act(path: Path, workspace: Workspace) -> frozenset[str]:
    return frozenset(held_digests(path, workspace).digests)


def test_unattacked_receipt_of_the_enrolled_host_counts(site: Site) -> None:
    (site.workspace.path / "hosts" / f"{site.key.public.fingerprint}.json").unlink()
    accept_receipt(site.receipt(0), site.workspace, site.key.public.fingerprint)
    assert act(site.receipt(1, None, site.bundle), site.workspace) == held_by(site.bundle.contents)


def test_attacked_by_a_receipt_of_another_key(site: Site, tmp_path: Path) -> None:
    path = site.receipt(50, make_key(tmp_path), site.bundle)
    refused(ROW, lambda: act(path, site.workspace), "receipt.stranger", str(path))


def test_attacked_by_a_signature_of_another_key_in_the_host_s_name(site: Site, tmp_path: Path) -> None:
    thief = make_key(tmp_path)
    path = put_receipt(tmp_path, thief, receipt_of(site.key, site.bundle, counter=51))
    refused(ROW, lambda: act(path, site.workspace), "signature.invalid", str(path))


@pytest.mark.parametrize("change", [{"counter": 99}, {"level": "E1"}, {"reads": 9}], ids=str)
def test_attacked_by_a_changed_member(site: Site, tmp_path: Path, change: dict[str, object]) -> None:
    value = json.loads(put_receipt(tmp_path, site.key, receipt_of(site.key, counter=52)).read_bytes())
    payload = to_file({**json.loads(b64decode(value["payload"])), **change})
    path = tmp_path / "changed.json"
    path.write_bytes(to_file({**value, "payload": b64encode(payload).decode()}))
    refused(ROW, lambda: act(path, site.workspace), "signature.invalid", str(path))


def test_attacked_by_evidence_of_the_same_host_in_its_place(site: Site, tmp_path: Path) -> None:
    """A host signs records of `verify`, too; one of them is no receipt."""
    value = json.loads(put_receipt(tmp_path, site.key, receipt_of(site.key, counter=53)).read_bytes())
    path = tmp_path / "evidence.json"
    path.write_bytes(to_file({**value, "payloadType": "application/vnd.airgap-appliance.evidence.v1+json"}))
    refused(ROW, lambda: act(path, site.workspace), "envelope.payload-type", str(path))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lie=st.data())
def test_attacked_by_a_false_claim_of_the_host_itself_the_copy_is_right_or_there_is_none(
    site: Site, tmp_path_factory: pytest.TempPathFactory, lie: st.DataObject
) -> None:
    """Whatever a receipt makes somebody leave out: a file is as it was signed, or it is not there."""
    bundle, folder = site.bundle, tmp_path_factory.mktemp("lie")
    every = sorted(held_by(bundle.contents))
    claimed = frozenset(lie.draw(st.sets(st.sampled_from(every))))
    carried = {chunk.sha256 for chunk in delta(bundle, claimed).blobs}
    source = Layout(site.path)

    def open_chunk(chunk: Chunk) -> int:
        if chunk.sha256 not in carried:
            raise DamagedError("blob.missing", chunk.sha256)
        return source.open_chunk(chunk)

    for number, file in enumerate(bundle.contents.files):
        copied = folder / str(number)
        try:
            copy_file(file, open_chunk, copied)
        except DamagedError:
            assert not copied.exists()
            assert _chunks(file) & claimed
        else:
            assert sha256(copied.read_bytes()) == file.sha256
            assert not _chunks(file) & claimed


def _chunks(file: File) -> set[str]:
    return {chunk.sha256 for chunk in file.chunks}


def test_unguarded_the_receipt_of_a_stranger_counts(site: Site, tmp_path: Path) -> None:
    stranger = make_key(tmp_path)
    path = put_receipt(tmp_path, stranger, replace(receipt_of(stranger, site.bundle), counter=60))
    with guard_off(ROW.guard, lambda *_: None):
        assert act(path, site.workspace) == held_by(site.bundle.contents)
