"""T127: a backup of another host, or one that was changed, is restored as if it were this host's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.host.maintenance.backup import write_backup
from appliance.host.maintenance.backup_manifest import MANIFEST_FILE
from appliance.host.maintenance.restore_stage import StagedRestore, stage
from appliance.host.site.api_keys import AccessStore
from appliance.keys.signers.host_key import make_host_key
from tests.appliance.host.held_releases import copied, empty_host, hold_release
from tests.appliance.sim_host import SimHost
from tests.attacks.harness import guard_off, refused, row
from tests.toy import NOW

ROW = row(127)


@pytest.fixture
def host(tmp_path: Path) -> SimHost:
    made = empty_host(tmp_path)
    hold_release(made, "1.0.1", serves=True)
    make_host_key(made.prefix.trust)
    AccessStore(made.prefix.access)
    return made


@pytest.fixture
def other(host: SimHost, tmp_path: Path) -> SimHost:
    """A host of the same publisher, on which a stranger has a key."""
    made = copied(host, tmp_path / "other")
    (made.prefix.trust / "host.pem").unlink()
    make_host_key(made.prefix.trust)
    AccessStore(made.prefix.access).grant("stranger", NOW)
    return made


def backup_of(host: SimHost, tmp_path: Path) -> Path:
    return write_backup(host.prefix, tmp_path, NOW).path


def take(host: SimHost, backup: Path) -> StagedRestore:
    return stage(host.prefix, backup, [], NOW)


def test_unattacked_backup_of_this_host_is_taken(host: SimHost, tmp_path: Path) -> None:
    assert take(host, backup_of(host, tmp_path)).is_own


def test_attacked_by_a_backup_of_another_host(host: SimHost, other: SimHost, tmp_path: Path) -> None:
    backup = backup_of(other, tmp_path)
    refused(ROW, lambda: take(host, backup), "backup.stranger", str(backup / MANIFEST_FILE))


def test_attacked_by_a_changed_list(host: SimHost, tmp_path: Path) -> None:
    path = backup_of(host, tmp_path) / MANIFEST_FILE
    value = json.loads(path.read_bytes())
    signature = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = ("B" if signature[20] == "A" else "A").join((signature[:20], signature[21:]))
    path.write_text(json.dumps(value))
    refused(ROW, lambda: take(host, path.parent), "signature.invalid", str(path))


def test_unguarded_keys_of_strangers_are_added(host: SimHost, other: SimHost, tmp_path: Path) -> None:
    backup = backup_of(other, tmp_path)
    with guard_off(ROW.guard, lambda *_: None):
        assert take(host, backup).keys.added == ("stranger",)
