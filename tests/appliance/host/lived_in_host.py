"""A host with keys, a configuration, a log and a receipt, and what a restore may change on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from appliance.host.layout.install_lock import hold
from appliance.host.maintenance.backup import WrittenBackup
from appliance.host.maintenance.restore import restore
from appliance.host.maintenance.restore_stage import stage
from appliance.host.site.api_keys import AccessStore, new_key
from appliance.host.site.key_merge import MergedKeys
from appliance.host.site.rights import Rights
from appliance.host.trust.receipt_counter import ReceiptCounter, take_number
from appliance.keys.signers.host_key import make_host_key
from signing.digest import Digest
from tests.appliance.host.held_releases import empty_host, hold_release
from tests.appliance.sim_host import SimHost
from tests.toy import NOW


def now() -> datetime:
    return NOW


def lived_in_host(folder: Path) -> SimHost:
    """A host with everything that a backup takes; its release has no environment."""
    made = empty_host(folder)
    hold_release(made, "1.0.1", serves=True)
    make_host_key(made.prefix.trust)
    take_number(made.prefix, ReceiptCounter(1, "2026-01-02T03:04:05Z"))
    store = AccessStore(made.prefix.access)
    store.grant("default", NOW, key=new_key())
    store.grant("ada", NOW, models=frozenset({"toy"}))
    store.grant("eve", NOW, rights=Rights(role="auditor"))
    made.prefix.site_file.write_text("port: 8444\n")
    made.prefix.default_key.write_text("ak-canary-in-default-key\n")
    (made.prefix.audit / "2026-01.jsonl").write_text("one\n")
    return made


def lose(host: SimHost) -> None:
    """The host has lost its keys, its configuration and its log."""
    host.prefix.access.unlink()
    AccessStore(host.prefix.access)
    host.prefix.site_file.unlink()
    (host.prefix.audit / "2026-01.jsonl").unlink()


def keys_of(host: SimHost) -> dict[str, bool]:
    """The names of the keys, and whether each is revoked."""
    return {key.name: key.is_revoked for key in AccessStore(host.prefix.access).list()}


def put_back(host: SimHost, backup: WrittenBackup, from_host: Sequence[Digest] = ()) -> MergedKeys:
    """Restore a backup."""
    with hold(host.prefix):
        return restore(stage(host.prefix, backup.path, from_host, NOW), now)


def state_of(host: SimHost) -> dict[str, bytes | list[tuple[object, ...]]]:
    """Everything that a restore may change, the database by its rows."""
    found: dict[str, bytes | list[tuple[object, ...]]] = {}
    for path in (host.prefix.site_file, *host.prefix.audit.rglob("*"), *host.prefix.trust.glob("*.json")):
        if path.is_file():
            found[str(path.relative_to(host.prefix.root))] = path.read_bytes()
    with closing(sqlite3.connect(host.prefix.access)) as database:
        for table in ("keys", "rights", "accounts"):
            found[table] = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    return found
