"""A workspace knows the hosts whose receipts count, and takes no step back with one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.keys.enrolled_hosts import HOSTS, accept_receipt, enrolled, held_digests
from appliance.keys.signers.pem import PemKey
from appliance.keys.workspace import Workspace
from bundles.bundle import Bundle, open_bundle
from bundles.delta import held_by
from bundles.receipt import HeldBundle
from signing.digest import sha256
from signing.errors import ApplianceError, DamagedError, NotTrustedError
from signing.floors import Floors
from tests.receipts import make_key, put_receipt, receipt_of
from tests.toy import NOW, build_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    return build_toy(tmp_path_factory.mktemp("hosts") / "workspace")


@pytest.fixture
def workspace(made: tuple[Workspace, Path], tmp_path: Path) -> Workspace:
    shutil.copytree(made[0].path, tmp_path / "workspace", symlinks=True)
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def bundle(made: tuple[Workspace, Path]) -> Bundle:
    return open_bundle(made[1], made[0].root_file.read_bytes(), Floors(), NOW).value


@pytest.fixture
def key(tmp_path: Path) -> PemKey:
    return make_key(tmp_path)


def code_of(path: Path, workspace: Workspace) -> str:
    with pytest.raises(ApplianceError) as caught:
        accept_receipt(path, workspace)
    return caught.value.code


def test_host_is_enrolled_once_and_its_later_receipts_count(workspace: Workspace, key: PemKey, tmp_path: Path) -> None:
    first = put_receipt(tmp_path, key, receipt_of(key))
    assert code_of(first, workspace) == "receipt.stranger"
    assert enrolled(workspace) == ()
    accept_receipt(first, workspace, key.public.fingerprint)
    assert enrolled(workspace) == (key.public.fingerprint,)
    assert accept_receipt(first, workspace).counter == 1
    assert accept_receipt(put_receipt(tmp_path, key, receipt_of(key, counter=7)), workspace).counter == 7
    assert code_of(first, workspace) == "receipt.old"


def test_fingerprint_of_another_host_enrols_nothing(workspace: Workspace, key: PemKey, tmp_path: Path) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key))
    with pytest.raises(NotTrustedError) as caught:
        accept_receipt(path, workspace, make_key(tmp_path, "other").public.fingerprint)
    assert (caught.value.code, enrolled(workspace)) == ("receipt.stranger", ())


def test_person_who_gives_the_fingerprint_again_begins_a_new_count(
    workspace: Workspace, key: PemKey, tmp_path: Path
) -> None:
    accept_receipt(put_receipt(tmp_path, key, receipt_of(key, counter=9)), workspace, key.public.fingerprint)
    back = put_receipt(tmp_path, key, receipt_of(key, counter=2))
    assert code_of(back, workspace) == "receipt.old"
    accept_receipt(back, workspace, key.public.fingerprint)
    assert accept_receipt(put_receipt(tmp_path, key, receipt_of(key, counter=3)), workspace).counter == 3


def test_held_digests_are_those_of_the_bundles_that_the_receipt_names(
    workspace: Workspace, bundle: Bundle, key: PemKey, tmp_path: Path
) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, bundle))
    accept_receipt(path, workspace, key.public.fingerprint)
    found = held_digests(path, workspace)
    assert (found.digests, found.unknown) == (held_by(bundle.contents), ())


@pytest.mark.parametrize("gone", ["dist", "trust/repository/targets"])
def test_held_digests_need_one_place_where_the_manifest_lies(
    workspace: Workspace, bundle: Bundle, key: PemKey, tmp_path: Path, gone: str
) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, bundle))
    accept_receipt(path, workspace, key.public.fingerprint)
    shutil.rmtree(workspace.path / gone)
    assert held_digests(path, workspace).digests == held_by(bundle.contents)


def test_bundle_that_the_workspace_lacks_leaves_nothing_out(
    workspace: Workspace, bundle: Bundle, key: PemKey, tmp_path: Path
) -> None:
    strange = HeldBundle(sha256(b"strange"), bundle.contents.name, bundle.contents.version)
    receipt = replace(receipt_of(key, bundle), bundles=(strange,), release=strange.manifest)
    path = put_receipt(tmp_path, key, receipt)
    accept_receipt(path, workspace, key.public.fingerprint)
    found = held_digests(path, workspace)
    assert (found.digests, found.unknown) == (frozenset(), (strange,))


def test_manifest_that_was_changed_in_the_workspace_leaves_nothing_out(
    workspace: Workspace, bundle: Bundle, key: PemKey, tmp_path: Path
) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, bundle))
    accept_receipt(path, workspace, key.public.fingerprint)
    shutil.rmtree(workspace.dist)
    for manifest in (workspace.repository.root / "targets").rglob("*.manifest.json"):
        manifest.write_bytes(manifest.read_bytes() + b" ")
    assert held_digests(path, workspace).unknown


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"counter":true,"floors":{},"receipt":""}'])
def test_record_that_somebody_edited_is_damage(workspace: Workspace, key: PemKey, tmp_path: Path, data: bytes) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key))
    accept_receipt(path, workspace, key.public.fingerprint)
    (workspace.path / HOSTS / f"{key.public.fingerprint}.json").write_bytes(data)
    assert code_of(path, workspace) == "hosts.damaged"


def test_strange_file_among_the_records_is_damage(workspace: Workspace) -> None:
    (workspace.path / HOSTS).mkdir()
    (workspace.path / HOSTS / "note.txt").write_bytes(b"")
    with pytest.raises(DamagedError):
        enrolled(workspace)
