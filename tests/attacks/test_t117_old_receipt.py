"""T117: an old receipt in place of the newest, and a host whose disk was set back to an old image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.keys.enrolled_hosts import accept_receipt
from appliance.keys.signers.pem import PemKey
from appliance.keys.workspace import Workspace, create_development
from tests.attacks.harness import guard_off, refused, row
from tests.receipts import FLOORS, make_key, put_receipt, receipt_of
from tests.toy import NOW

ROW = row(117)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create_development(tmp_path / "workspace", NOW)[0]


@pytest.fixture
def key(workspace: Workspace, tmp_path: Path) -> PemKey:
    """Of a host whose fifth receipt was read last."""
    made = make_key(tmp_path)
    accept_receipt(
        put_receipt(tmp_path, made, receipt_of(made, counter=5)), workspace, fingerprint=made.public.fingerprint
    )
    return made


def test_unattacked_newer_receipt_and_the_same_one_again_are_read(
    workspace: Workspace, key: PemKey, tmp_path: Path
) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, counter=9, floors=replace(FLOORS, targets=7)))
    assert accept_receipt(path, workspace).counter == 9
    assert accept_receipt(path, workspace).counter == 9


@pytest.mark.parametrize("counter", [1, 4])
def test_attacked_by_an_older_receipt(workspace: Workspace, key: PemKey, tmp_path: Path, counter: int) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, counter=counter))
    refused(ROW, lambda: accept_receipt(path, workspace), "receipt.old", str(path))


def test_attacked_by_a_second_receipt_with_the_same_number(workspace: Workspace, key: PemKey, tmp_path: Path) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, counter=5, level="E1"))
    refused(ROW, lambda: accept_receipt(path, workspace), "receipt.old", str(path))


@pytest.mark.parametrize(
    "back", [{"targets": 1}, {"root": 1, "timestamp": 1}, {"time": "2025-01-01T00:00:00Z"}], ids=str
)
def test_attacked_by_a_host_whose_floors_were_set_back(
    workspace: Workspace, key: PemKey, tmp_path: Path, back: dict[str, object]
) -> None:
    floors = replace(FLOORS, **back)  # type: ignore[arg-type]
    path = put_receipt(tmp_path, key, receipt_of(key, counter=6, floors=floors))
    refused(ROW, lambda: accept_receipt(path, workspace), "receipt.old", str(path))


def test_attacked_workspace_remembers_the_newest(workspace: Workspace, key: PemKey, tmp_path: Path) -> None:
    [record] = (workspace.path / "hosts").iterdir()
    before = record.read_bytes()
    path = put_receipt(tmp_path, key, receipt_of(key, counter=2))
    refused(ROW, lambda: accept_receipt(path, workspace), "receipt.old", str(path))
    assert record.read_bytes() == before


def test_unguarded_the_old_receipt_counts(workspace: Workspace, key: PemKey, tmp_path: Path) -> None:
    path = put_receipt(tmp_path, key, receipt_of(key, counter=2))
    with guard_off(ROW.guard, lambda *_: None):
        assert accept_receipt(path, workspace).counter == 2
