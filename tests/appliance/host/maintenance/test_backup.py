"""A backup has what no stick brings back and no private key; a restore puts it back, and only raises floors."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import pytest

from appliance.host.change.change_file import read_change
from appliance.host.maintenance.backup import WrittenBackup, write_backup
from appliance.host.maintenance.backup_manifest import MANIFEST_FILE, write_manifest
from appliance.host.maintenance.restore_stage import restore_folder, stage
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.key_merge import MergedKeys
from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter, take_number
from appliance.host.trust.trust_store import read_floors, write_floors
from appliance.keys.signers.host_key import host_key, make_host_key
from appliance.keys.signers.signer import sign_checked
from appliance.keys.workspace import create_development
from signing.digest import sha256
from signing.errors import (
    ApplianceError,
    DamagedError,
    HostUnfitError,
    NotTrustedError,
    UsageError,
)
from signing.strictjson import to_file
from tests.appliance.host.held_releases import copied
from tests.appliance.host.lived_in_host import keys_of, put_back, state_of
from tests.appliance.sim_host import SimHost
from tests.toy import NOW

LATER = datetime(2026, 3, 1, tzinfo=NOW.tzinfo)


def test_backup_lists_a_closed_set_of_files_and_holds_no_secret(host: SimHost, stick: Path) -> None:
    done = write_backup(host.prefix, stick, NOW)
    assert [file.path for file in done.manifest.files] == [
        "root.json",
        "access.db",
        "site.yaml",
        "roots/1.root.json",
        "audit/2026-01.jsonl",
    ]
    assert done.manifest.floors == read_floors(host.prefix)
    assert (done.manifest.counter, done.manifest.state) == (1, 1)
    everything = b"".join(path.read_bytes() for path in stick.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in everything
    assert b"ak-canary" not in everything
    assert [path.name for path in stick.iterdir()] == [done.path.name]
    names = {str(path.relative_to(done.path)) for path in done.path.rglob("*") if path.is_file()}
    assert names == {MANIFEST_FILE, *(file.path for file in done.manifest.files)}


def test_backup_onto_a_full_or_lying_stick_leaves_nothing(
    host: SimHost, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "appliance.host.maintenance.backup"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ApplianceError) as caught:
        patch.setattr("shutil.copyfileobj", full)
        write_backup(host.prefix, stick, NOW)
    assert caught.value.code == "disk.full"
    digests = iter(range(100))
    with monkeypatch.context() as patch, pytest.raises(DamagedError) as damaged:
        patch.setattr(f"{module}._digest", lambda _: sha256(str(next(digests)).encode()))
        write_backup(host.prefix, stick, NOW)
    assert damaged.value.code == "backup.read-back"
    assert list(stick.iterdir()) == []


def test_backup_needs_an_install_and_a_folder(host: SimHost, stick: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_backup(host.prefix, tmp_path / "no", NOW)
    (host.prefix.trust / "host.pem").unlink()
    with pytest.raises(UsageError):
        write_backup(host.prefix, stick, NOW)


def test_what_was_lost_comes_back(host: SimHost, stick: Path) -> None:
    backup, before = write_backup(host.prefix, stick, NOW), state_of(host)
    host.prefix.access.unlink()
    host.prefix.site_file.unlink()
    shutil.rmtree(host.prefix.audit)
    host.prefix.audit.mkdir()
    (host.prefix.trust / "receipts.json").unlink()
    merged = put_back(host, backup)
    assert merged.added == ("default", "ada", "eve")
    after = state_of(host)
    assert after["keys"] == before["keys"]
    assert after["rights"] == before["rights"]
    assert after["etc/appliance/site.yaml"] == b"port: 8444\n"
    assert read_counter(host.prefix).counter == 1
    [log] = host.prefix.audit.rglob("*.jsonl")
    assert log.read_text() == "one\n"
    assert log.parent.name.startswith("restored-")
    assert read_change(host.prefix) is None
    assert not restore_folder(host.prefix).exists()


def test_keys_of_this_host_stay_as_they_are(host: SimHost, stick: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    store = AccessStore(host.prefix.access)
    store.revoke("ada", LATER)
    store.grant("new", LATER)
    assert put_back(host, backup) == MergedKeys((), ())
    assert keys_of(host) == {"ada": True, "default": False, "eve": False, "new": False}


def test_key_that_is_revoked_in_the_backup_becomes_revoked_here(host: SimHost, stick: Path) -> None:
    older = host.prefix.access.read_bytes()
    AccessStore(host.prefix.access).revoke("ada", LATER)
    backup = write_backup(host.prefix, stick, NOW)
    host.prefix.access.write_bytes(older)
    assert put_back(host, backup).revoked == ("ada",)
    assert keys_of(host)["ada"]


def test_name_that_another_key_has_here_is_kept_and_both_keys_work(host: SimHost, stick: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    host.prefix.access.unlink()
    key = AccessStore(host.prefix.access).grant("default", LATER)
    added = put_back(host, backup).added
    assert [name for name in added if name.startswith("default-")] != []
    found = AccessStore(host.prefix.access).check(key, LATER)
    assert found is not None
    assert found.name == "default"
    assert len(keys_of(host)) == 4


def test_floors_and_the_counter_rise_and_never_fall(host: SimHost, stick: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    higher = replace(read_floors(host.prefix), time="2026-05-01T00:00:00Z")
    write_floors(host.prefix, higher)
    take_number(host.prefix, ReceiptCounter(2, "2026-05-01T00:00:00Z"))
    put_back(host, backup)
    assert read_floors(host.prefix) == higher
    assert read_counter(host.prefix).counter == 2
    later = write_backup(host.prefix, stick, LATER)
    (host.prefix.trust / "floors.json").write_bytes(to_file(asdict(backup.manifest.floors)))
    (host.prefix.trust / "receipts.json").unlink()
    put_back(host, later)
    assert read_floors(host.prefix) == higher
    assert read_counter(host.prefix).counter == 2


def test_floors_under_which_the_release_could_not_be_opened_are_refused(host: SimHost, stick: Path) -> None:
    key = host_key(host.prefix.trust)
    assert key
    backup = write_backup(host.prefix, stick, NOW)
    floors = replace(backup.manifest.floors, targets=backup.manifest.floors.targets + 1)
    resign(host, backup, floors=floors)
    before = state_of(host)
    with pytest.raises(HostUnfitError) as caught:
        put_back(host, backup)
    assert caught.value.code == "restore.newer-floors"
    assert "newest stick first" in caught.value.hint
    resign(host, backup, floors=replace(floors, targets=floors.targets + 20_000))
    with pytest.raises(NotTrustedError) as far:
        put_back(host, backup)
    assert far.value.code == "version.fast-forward"
    assert state_of(host) == before


def resign(host: SimHost, backup: WrittenBackup, **values: object) -> None:
    """The same backup with other statements, signed by the host itself."""
    key = host_key(host.prefix.trust)
    assert key
    manifest = replace(backup.manifest, **values)  # type: ignore[arg-type]
    data = write_manifest(manifest, lambda message: sign_checked(key, message, "backup"))
    (backup.path / MANIFEST_FILE).write_bytes(data)


def test_backup_of_another_host_needs_its_fingerprint_and_leaves_the_counter(
    host: SimHost, stick: Path, tmp_path: Path
) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    other = copied(host, tmp_path / "other")
    (other.prefix.trust / "host.pem").unlink()
    (other.prefix.trust / "receipts.json").unlink()
    make_host_key(other.prefix.trust)
    with pytest.raises(NotTrustedError) as caught:
        put_back(other, backup)
    assert caught.value.code == "backup.stranger"
    put_back(other, backup, from_host=[backup.manifest.host.fingerprint])
    assert read_counter(other.prefix).counter == 0


def test_root_of_another_chain_or_none_is_refused(host: SimHost, stick: Path, tmp_path: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    root = host.prefix.trust / "root.json"
    root.unlink()
    with pytest.raises(NotTrustedError) as caught:
        put_back(host, backup)
    assert caught.value.code == "trust.none-pinned"
    root.write_bytes(create_development(tmp_path / "stranger", NOW)[0].root_file.read_bytes())
    with pytest.raises(NotTrustedError) as other:
        put_back(host, backup)
    assert other.value.code == "restore.other-root"


@pytest.mark.parametrize("file", ["access.db", "site.yaml", "root.json", "audit/2026-01.jsonl", "roots/1.root.json"])
def test_file_that_differs_or_is_missing_is_damaged_and_nothing_is_changed(
    host: SimHost, stick: Path, file: str
) -> None:
    backup, before = write_backup(host.prefix, stick, NOW), state_of(host)
    path = backup.path / file
    data = path.read_bytes()
    for other in (data[:-1], data + b" ", bytes([data[0] ^ 1]) + data[1:], None):
        path.unlink(missing_ok=True)
        if other is not None:
            path.write_bytes(other)
        with pytest.raises(DamagedError) as caught:
            put_back(host, backup)
        assert caught.value.subject == file
        if other == data + b" ":
            assert caught.value.found == f"more than {len(data)} bytes", "the digest of a part would mislead"
    path.symlink_to("/etc/passwd")
    with pytest.raises(NotTrustedError):
        put_back(host, backup)
    assert state_of(host) == before


def test_list_with_another_path_or_number_is_refused(host: SimHost, stick: Path) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    first = backup.manifest.files[0]
    for wrong in ("trust/host.pem", "../root.json", "audit/../../x", "audit/.x", "roots/0.root.json", "default.key"):
        resign(host, backup, files=(replace(first, path=wrong),))
        with pytest.raises(NotTrustedError):
            put_back(host, backup)
    resign(host, backup, files=(first, first))
    with pytest.raises(NotTrustedError):
        put_back(host, backup)
    resign(host, backup, state=2)
    with pytest.raises(HostUnfitError) as caught:
        put_back(host, backup)
    assert caught.value.code == "restore.state"
    with pytest.raises(UsageError):
        stage(host.prefix, stick, [], NOW)


def test_list_of_a_later_format_names_the_way_out(host: SimHost, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = write_backup(host.prefix, stick, NOW)
    with monkeypatch.context() as patch:
        patch.setattr("appliance.host.maintenance.backup_manifest.FORMAT", 2)
        resign(host, backup)
    with pytest.raises(HostUnfitError) as caught:
        put_back(host, backup)
    assert caught.value.code == "backup.newer-format"


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE keys ADD COLUMN only_on TEXT", "CREATE TABLE more (a)", "CREATE VIEW v AS SELECT 1"],
)
def test_keys_of_a_later_version_are_refused(host: SimHost, stick: Path, change: str) -> None:
    older = host.prefix.access.read_bytes()
    with closing(sqlite3.connect(host.prefix.access)) as database, database:
        database.execute(change)
    backup = write_backup(host.prefix, stick, NOW)
    host.prefix.access.write_bytes(older)
    before = state_of(host)
    with pytest.raises(HostUnfitError) as caught:
        put_back(host, backup)
    assert caught.value.code == "restore.newer-keys"
    assert state_of(host) == before


def test_configuration_that_this_program_refuses_is_refused(host: SimHost, stick: Path) -> None:
    host.prefix.site_file.write_text("port: none\n")
    backup = write_backup(host.prefix, stick, NOW)
    host.prefix.site_file.write_text("port: 1\n")
    with pytest.raises(UsageError):
        put_back(host, backup)
    assert host.prefix.site_file.read_text() == "port: 1\n"
