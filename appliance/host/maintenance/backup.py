"""`appliance backup`: what a host cannot get back from a stick, in one folder that its key signs.

Owns what is taken and the order of writing. The form of the list is `appliance.host.maintenance.backup_manifest`'s.

Rules (threats T33, T41, T127):
- a closed list is taken: the pinned root and the roots before it, floors and the receipts' counter, the keys of users,
  the site's configuration, the audit log. No private key, no key of a user, no release and no model is in it;
- the keys of users are hashes; they are copied by SQLite, so that a writer at the same moment leaves no half row;
- every file is read back from the medium, and the list is written last. The folder gets its name when it is complete.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.backup_manifest import (
    ACCESS,
    AUDIT,
    MANIFEST_FILE,
    ROOT,
    ROOTS,
    SITE,
    BackupFile,
    BackupManifest,
    is_backup_path,
    write_manifest,
)
from appliance.host.release.release import current_target
from appliance.host.release.state_format import read_state_format
from appliance.host.trust.receipt_counter import read_counter
from appliance.host.trust.trust_store import read_floors
from appliance.keys.signers.host_key import host_key
from appliance.keys.signers.signer import sign_checked
from appliance.keys.tuf_metadata import format_time
from bundles.durability import forget_cached
from bundles.medium import explain_write, sync_folder
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, DamagedError, UsageError
from signing.floors import Floors

_BLOCK_BYTES = 1 << 20
_ROOT_NAME = re.compile(r"[1-9][0-9]{0,9}\.root\.json")


@dataclass(frozen=True, slots=True)
class WrittenBackup:
    """A backup that is complete and durable: its folder, and its list."""

    path: Path
    manifest: BackupManifest


def write_backup(prefix: Prefix, destination: Path, now: datetime) -> WrittenBackup:
    """Write a backup of this host into a new folder.

    Args:
        prefix: the host.
        destination: a folder that exists, for example of a stick.
        now: the clock, in UTC.

    Returns:
        The backup.

    Raises:
        UsageError: the folder does not exist, nothing was ever installed here, or this user cannot read the host's key.
        DamagedError: a file of this host cannot be read, or the medium gives other bytes than were written.
        ApplianceError: the medium is full, or may not be written.
        BusyError: an install runs.
    """
    key = host_key(prefix.trust) if prefix.trust.is_dir() else None
    if key is None or read_floors(prefix) == Floors():
        raise _nothing(prefix)
    if not destination.is_dir():
        raise UsageError(
            "backup.no-folder",
            str(destination),
            expected="a folder that exists",
            found="none",
            hint="check the path, and that the stick is mounted",
        )
    folder = destination / f"backup-{key.public.fingerprint[:12]}-{now.strftime('%Y%m%dT%H%M%SZ')}"
    partial = destination / f".{folder.name}.partial"
    try:
        with hold(prefix):
            partial.mkdir(0o700)
            files = tuple(_store(source, partial, path) for path, source in _sources(prefix))
            counter = read_counter(prefix)
            manifest = BackupManifest(
                key.public,
                format_time(now),
                read_state_format(prefix),
                read_floors(prefix),
                counter.counter,
                counter.time,
                files,
            )
            data = write_manifest(manifest, lambda message: sign_checked(key, message, MANIFEST_FILE))
            (partial / MANIFEST_FILE).write_bytes(data)
            _read_back(partial / MANIFEST_FILE, sha256(data))
            sync_folder(partial)
            partial.rename(folder)
            sync_folder(destination)
    except OSError as error:
        raise explain_write(error, folder, 0) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return WrittenBackup(folder, manifest)


def copy_database(source: Path, target: Path) -> None:
    """Copy a database of SQLite with its own backup call: a consistent state, also while it is written.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise DamagedError(
            "access.damaged",
            str(source),
            expected="the keys that this host granted",
            found=str(error),
            hint="restore this file from a backup, or remove it: every key then ends",
        ) from None


def _sources(prefix: Prefix) -> Iterator[tuple[str, Path]]:
    """The files that are taken, by their path in the backup; those that this host lacks are left out."""
    found = [(ROOT, prefix.trust / "root.json"), (ACCESS, prefix.access), (SITE, prefix.site_file)]
    if target := current_target(prefix):
        found += [(f"{ROOTS}/{path.name}", path) for path in _roots(prefix.opt / target / "bundle" / "metadata")]
    if prefix.audit.is_dir():
        found += [(f"{AUDIT}/{path.name}", path) for path in sorted(prefix.audit.iterdir())]
    for path, source in found:
        if source.is_file() and not source.is_symlink():
            if not is_backup_path(path):
                raise ApplianceError(
                    "backup.name",
                    str(source),
                    expected="a file name of letters, digits and . _ -",
                    found=repr(source.name)[:120],
                    hint="move this file away: no install made it",
                )
            yield path, source


def _roots(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.root.json") if _ROOT_NAME.fullmatch(path.name))


def _store(source: Path, folder: Path, path: str) -> BackupFile:
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    if path == ACCESS:
        copy_database(source, target)
    else:
        with source.open("rb") as old, target.open("xb") as new:
            shutil.copyfileobj(old, new, _BLOCK_BYTES)
    written = _digest(target)
    _read_back(target, written)
    sync_folder(target.parent)
    return BackupFile(path, target.stat().st_size, written)


def _read_back(path: Path, wanted: Digest) -> None:
    with path.open("rb") as file:
        forget_cached(file.fileno())
    found = _digest(path)
    if found != wanted:
        raise DamagedError(
            "backup.read-back",
            str(path),
            expected=f"sha256 {wanted}, as it was written",
            found=f"sha256 {found}",
            hint="use another stick",
        )


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return Digest(digest.hexdigest())


def _nothing(prefix: Prefix) -> UsageError:
    return UsageError(
        "backup.nothing",
        str(prefix.trust),
        expected="a host with a key and floors, and a user who may read the key",
        found="no key that can be read, or no floors",
        hint=f"as root, after the first install: appliance backup DEST{prefix.option}",
    )
