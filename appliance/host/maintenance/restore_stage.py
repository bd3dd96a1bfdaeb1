"""The staged half of a restore: a backup is verified and copied to this host once, and compared with what is here.

Owns `restore/` below the host's state: `new/` has the verified copies, `old/` what this host had. Nothing that serves
is touched here; `appliance.host.maintenance.restore` applies it.

Rules (threats T16, T40, T41, T127):
- each file is hashed while it is copied, and only the copy is read after that;
- the floors of a backup count only where its root and the pinned one are of one chain; no root is pinned by a restore;
- floors that would keep the release that serves from being opened are refused before anything is changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.host.change.change_file import RESTORE, read_change
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.maintenance.backup import copy_database
from appliance.host.maintenance.backup_manifest import (
    ACCESS,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    ROOT,
    ROOTS,
    SITE,
    BackupFile,
    BackupManifest,
    read_manifest,
)
from appliance.host.release.release import current_target
from appliance.host.release.state_format import FIRST, state_formats
from appliance.host.site.config import parse_site
from appliance.host.site.key_merge import MergedKeys, merge_keys
from appliance.host.trust.root_chain import is_same_chain
from appliance.host.trust.root_choice import none_pinned
from appliance.host.trust.trust_store import MAX_ROOT_BYTES, read_floors, read_root
from appliance.keys.signers.host_key import host_public
from bundles.bundle import open_bundle
from bundles.durability import sync_file_system
from bundles.medium import Medium
from bundles.stick.media import metadata_reader
from signing.chain import ReadMetadata
from signing.digest import Digest
from signing.errors import BusyError, DamagedError, DriftError, HostUnfitError, NotTrustedError, UsageError
from signing.floors import Floors

_COMPLETE = "complete"
_BLOCK_BYTES = 1 << 20
_ROLES = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class StagedRestore:
    """A backup that was verified and copied to this host.

    Args:
        prefix: the host.
        folder: of the copies.
        manifest: verified.
        is_own: whether this host wrote the backup.
        keys: what the merge of users' keys would do.
        floors: of this host after the restore.
        has_site: whether the backup has another site's file than this host.
    """

    prefix: Prefix
    folder: Path
    manifest: BackupManifest
    is_own: bool
    keys: MergedKeys
    floors: Floors
    has_site: bool

    def new(self, path: str) -> Path:
        """Where the verified copy of a file of the backup lies."""
        return self.folder / "new" / path

    def old(self, path: str) -> Path:
        """Where the copy of what this host had lies."""
        return self.folder / "old" / path

    def check_old(self) -> None:
        """Refuse to take a file that is missing there for one that this host did not have.

        Raises:
            DriftError: the copies are gone.
        """
        if not self.old("").is_dir():
            raise DriftError(
                "restore.no-copies",
                str(self.old("")),
                expected="the copies of what this host had",
                found="none",
                hint="what was not put back stays as it is; look at it before the next restore",
            )

    def holds(self, path: str) -> bool:
        """Whether the backup has a file of this name."""
        return any(file.path == path for file in self.manifest.files)


def stage(prefix: Prefix, backup: Path, from_host: Sequence[Digest], now: datetime) -> StagedRestore:
    """Verify a backup and copy it to this host.

    Args:
        prefix: the host; its lock is held.
        backup: untrusted; the folder of a backup, or the list in it.
        from_host: fingerprints of keys of other hosts whose backups count.
        now: the clock, in UTC.

    Raises:
        UsageError: no backup lies there.
        NotTrustedError: it is not covered by a key that counts, or its root is of another chain; or nothing is pinned.
        DamagedError: a file differs from what was signed.
        HostUnfitError: this host's release cannot read it, or could not be opened under its floors.
        BusyError: a change of this host is unfinished.
    """
    refuse_beside_change(prefix)
    folder = backup.parent if backup.name == MANIFEST_FILE else backup
    data = Medium(folder).read(MANIFEST_FILE, MAX_MANIFEST_BYTES) if folder.is_dir() else None
    if data is None:
        raise UsageError(
            "restore.no-backup",
            str(backup),
            expected=f"the folder of a backup, with {MANIFEST_FILE}",
            found="none",
            hint="check the path, and that the stick is mounted",
        )
    own = host_public(prefix.trust)
    known = [*from_host, *([own.fingerprint] if own else [])]
    manifest = read_manifest(data, known, str(folder / MANIFEST_FILE))
    discard(prefix)
    target = restore_folder(prefix)
    make_folder(target, PRIVATE)
    for name in ("new", "old"):
        make_folder(target / name, PRIVATE)
    for file in manifest.files:
        _copy(Medium(folder), file, target / "new" / file.path)
    write_file(target / MANIFEST_FILE, data, 0o600)
    _save_old(prefix, target / "old")
    staged = _open(prefix, manifest, now)
    sync_file_system(target)
    write_file(target / _COMPLETE, manifest.host.fingerprint.encode())
    return staged


def staged_again(prefix: Prefix, now: datetime) -> StagedRestore:
    """Open what was staged, after the restore of it was cut off.

    Raises:
        UsageError: no restore was cut off here.
    """
    folder, change = restore_folder(prefix), read_change(prefix)
    if change is None or change.op != RESTORE or not (folder / _COMPLETE).is_file():
        raise UsageError(
            "restore.not-begun",
            str(folder),
            expected="a restore that was cut off",
            found=change.op if change else "none",
            hint=f"to begin one: appliance restore BACKUP{prefix.option}",
        )
    # The mark names the key that counted when the list was verified.
    known = [Digest((folder / _COMPLETE).read_text("ascii"))]
    path = folder / MANIFEST_FILE
    return _open(prefix, read_manifest(path.read_bytes(), known, str(path)), now)


def restore_folder(prefix: Prefix) -> Path:
    """Where a restore is staged."""
    return prefix.state / "restore"


def discard(prefix: Prefix) -> None:
    """Remove what is staged; first the mark that it is complete."""
    folder = restore_folder(prefix)
    (folder / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def put_away(prefix: Prefix) -> None:
    """Remove what is staged, unless a restore of it has begun: then the next boot goes on with it."""
    change = read_change(prefix)
    if change is None or change.op != RESTORE:
        discard(prefix)


def refuse_beside_change(prefix: Prefix) -> None:
    """Refuse a restore while another change of this host is unfinished.

    Raises:
        BusyError: an install, rollback or uninstall is.
    """
    change = read_change(prefix)
    if change is not None and change.op != RESTORE:
        raise BusyError(
            "restore.unfinished",
            str(prefix.root),
            expected="no unfinished change of this host",
            found=f"{change.op}, {change.phase}",
            hint=f"`appliance status{prefix.option}` shows the next command; then restore",
        )


def _open(prefix: Prefix, manifest: BackupManifest, now: datetime) -> StagedRestore:
    folder = restore_folder(prefix)
    own = host_public(prefix.trust)
    is_own = own is not None and own.fingerprint == manifest.host.fingerprint
    floors = raised_floors(prefix, manifest, folder / "new")
    _check_release(prefix, manifest, floors, now)
    staged = StagedRestore(prefix, folder, manifest, is_own, MergedKeys((), ()), floors, has_site=False)
    keys = _try_keys(staged) if staged.holds(ACCESS) else staged.keys
    has_site = staged.holds(SITE) and _has_other_site(prefix, staged.new(SITE))
    return StagedRestore(prefix, folder, manifest, is_own, keys, floors, has_site)


def raised_floors(prefix: Prefix, manifest: BackupManifest, copies: Path) -> Floors:
    """The floors of this host after a restore: each the higher of both (threat T41).

    Raises:
        NotTrustedError: nothing is pinned, the root of the backup is of another chain, or a floor is far too high.
    """
    pinned, theirs = read_root(prefix), copies / ROOT
    if pinned is None:
        raise none_pinned(prefix)
    if not theirs.is_file() or not is_same_chain(theirs.read_bytes(), pinned, _roots_of(prefix, copies)):
        raise NotTrustedError(
            "restore.other-root",
            ROOT,
            expected="a backup of a host that follows the pinned root",
            found="another root",
            hint="a host of another publisher has another prefix; this backup is not for this one",
        )
    mine, found = read_floors(prefix), manifest.floors
    for role in _ROLES:
        if getattr(found, role) > getattr(mine, role):
            mine.check(role, getattr(found, role), MANIFEST_FILE)
    return mine.raised(found)


def _roots_of(prefix: Prefix, copies: Path) -> list[ReadMetadata]:
    def read(name: str, most: int) -> bytes | None:
        path = copies / ROOTS / name
        return path.read_bytes() if path.is_file() and path.stat().st_size <= min(most, MAX_ROOT_BYTES) else None

    held = [path / "bundle" for path in sorted(prefix.releases.glob("*/"))]
    return [read, *(metadata_reader(path) for path in held if path.is_dir())]


def _check_release(prefix: Prefix, manifest: BackupManifest, floors: Floors, now: datetime) -> None:
    reads, target = FIRST.reads, current_target(prefix)
    if target is not None:
        root = read_root(prefix)
        assert root is not None  # raised_floors has refused a host without one
        open_bundle(
            prefix.opt / target / "bundle", root, read_floors(prefix), now
        )  # its own faults are not the backup's
        try:
            bundle = open_bundle(prefix.opt / target / "bundle", root, floors, now)
        except NotTrustedError as error:
            raise HostUnfitError(
                "restore.newer-floors",
                prefix.current.name,
                expected=f"a release with metadata as new as the backup's: targets {manifest.floors.targets}",
                found=str(error),
                hint=f"install from the newest stick first: appliance install STICK{prefix.option}; then restore",
            ) from None
        reads = state_formats(bundle.value.contents).reads
    if manifest.state not in reads:
        raise HostUnfitError(
            "restore.state",
            MANIFEST_FILE,
            expected=f"stored state of format {' or '.join(map(str, reads))}",
            found=f"format {manifest.state}",
            hint="install the release that wrote this backup, or a later one; then restore",
        )


def _try_keys(staged: StagedRestore) -> MergedKeys:
    """Merge into a copy of this host's keys: what cannot be merged is refused before anything is changed."""
    trial = staged.folder / "trial.db"
    trial.unlink(missing_ok=True)
    if staged.prefix.access.is_file():
        copy_database(staged.prefix.access, trial)
    try:
        return merge_keys(trial, staged.new(ACCESS))
    finally:
        trial.unlink(missing_ok=True)


def _has_other_site(prefix: Prefix, path: Path) -> bool:
    data = path.read_bytes()
    parse_site(data, Path(SITE))
    return not prefix.site_file.is_file() or prefix.site_file.read_bytes() != data


def _save_old(prefix: Prefix, folder: Path) -> None:
    if prefix.site_file.is_file():
        write_file(folder / SITE, prefix.site_file.read_bytes())
    if prefix.access.is_file():
        copy_database(prefix.access, folder / ACCESS)


def _copy(medium: Medium, file: BackupFile, target: Path) -> None:
    make_folder(target.parent, PRIVATE)
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = medium.open(file.path)
    except FileNotFoundError:
        raise _damaged(file, "no file") from None
    with open(descriptor, "rb") as source, target.open("xb") as copy:
        while block := source.read(_BLOCK_BYTES):
            size += len(block)
            if size > file.size:
                raise _damaged(file, f"more than {file.size} bytes")
            digest.update(block)
            copy.write(block)
    if (size, digest.hexdigest()) != (file.size, file.sha256):
        raise _damaged(file, f"{size} bytes with sha256 {digest.hexdigest()}")


def _damaged(file: BackupFile, found: str) -> DamagedError:
    return DamagedError(
        "backup.file-changed",
        file.path,
        expected=f"{file.size} bytes with sha256 {file.sha256}",
        found=found,
        hint="use another copy of this backup; nothing was restored",
    )
