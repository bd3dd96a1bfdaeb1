"""`appliance restore`: what a backup has is put back, in steps that a boot finishes (docs/lifecycle.md).

Owns the steps and their undo. What is restored was verified and staged before, see
`appliance.host.maintenance.restore_stage`.

Rules (threats T35, T41, T128):
- floors and the receipts' counter only rise, and no undo lowers them;
- the keys of this host stay as they are here; those that only the backup has are added;
- the gate opens everything that was restored, and the release that serves; where it fails, what was there is back;
- every step may run again, so that an interrupted restore is run from its begin.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from appliance.events import ACCESS_GRANTED, ACCESS_REVOKED, Event
from appliance.host.change.change_file import RESTORE, RESTORING, HostChange, clear_change, utc_text, write_change
from appliance.host.change.journal import Journal
from appliance.host.change.step_runner import ChangeStep, OnBoundary, StepRecord, StepRunner, ignore_boundary
from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from appliance.host.maintenance.backup_manifest import ACCESS, AUDIT, SITE
from appliance.host.maintenance.restore_stage import StagedRestore, discard, refuse_beside_change
from appliance.host.process.journal import command_sink
from appliance.host.release.release import current_target, open_current
from appliance.host.site.api_keys import AccessStore
from appliance.host.site.config import read_site
from appliance.host.site.key_merge import MergedKeys, merge_keys
from appliance.host.trust.receipt_counter import ReceiptCounter, read_counter
from appliance.host.trust.trust_store import read_floors, write_floors
from bundles.medium import sync_folder
from signing.errors import ApplianceError, ApplyBrokenError, ApplyRestoredError
from signing.strictjson import to_file


@dataclass(slots=True)
class RestoreRun:
    """The values that the steps of one restore share; `keys` is what the merge did."""

    staged: StagedRestore
    now: Callable[[], datetime]
    keys: MergedKeys

    @property
    def prefix(self) -> Prefix:
        """The host."""
        return self.staged.prefix


def restore(
    staged: StagedRestore, now: Callable[[], datetime], on_boundary: OnBoundary = ignore_boundary
) -> MergedKeys:
    """Put back what was staged.

    Args:
        staged: from `stage` or `staged_again`; the lock of its host is held.
        now: the clock, in UTC.
        on_boundary: called before and after each step; a test ends the process there.

    Returns:
        The keys that were added or revoked.

    Raises:
        BusyError: another change of this host began meanwhile.
        ApplyRestoredError: a step or the gate failed; what was there is back, but for floors that rose.
        ApplyBrokenError: that could not be put back.
    """
    refuse_beside_change(staged.prefix)
    run = RestoreRun(staged, now, MergedKeys((), ()))
    journal = Journal(staged.prefix.journal / "install.jsonl", now)
    name = Path(current_target(staged.prefix) or "").name
    StepRunner(STEPS, run, journal, name, staged.prefix.state, _not_undone, on_boundary).run()
    return run.keys


def _record(run: RestoreRun, _record: StepRecord) -> None:
    write_change(run.prefix, HostChange(RESTORE, "", "", RESTORING, utc_text(run.now())))


def _forget(run: RestoreRun) -> None:
    clear_change(run.prefix)
    discard(run.prefix)


def _raise_floors(run: RestoreRun, record: StepRecord) -> None:
    record.note = "raised" if write_floors(run.prefix, run.staged.manifest.floors) else "as high already"


def _raise_counter(run: RestoreRun, record: StepRecord) -> None:
    found = ReceiptCounter(run.staged.manifest.counter, run.staged.manifest.counted)
    if found.counter > read_counter(run.prefix).counter:
        write_file(run.prefix.trust / "receipts.json", to_file(asdict(found)))
        record.note = f"number {found.counter}"


def _is_own(run: RestoreRun) -> bool:
    return run.staged.is_own


def _merge_keys(run: RestoreRun, record: StepRecord) -> None:
    run.keys = merge_keys(run.prefix.access, run.staged.new(ACCESS))
    record.note = f"{len(run.keys.added)} added, {len(run.keys.revoked)} revoked"
    store, send = AccessStore(run.prefix.access), command_sink(is_system=run.prefix.is_system)
    for kind, names in ((ACCESS_GRANTED, run.keys.added), (ACCESS_REVOKED, run.keys.revoked)):
        for key in filter(None, map(store.find, names)):
            send(Event(kind, {"key": key.id, "account": key.account}))


def _has_keys(run: RestoreRun) -> bool:
    return run.staged.holds(ACCESS)


def _keys_back(run: RestoreRun) -> None:
    run.staged.check_old()
    old = run.staged.old(ACCESS)
    if not old.is_file():
        run.prefix.access.unlink(missing_ok=True)
        return
    before, theirs = _revoked(old), _revoked(run.staged.new(ACCESS))
    # What an operator has revoked or replaced meanwhile never comes back.
    own = {key: at for key, at in _revoked(run.prefix.access).items() if key not in before and key not in theirs}
    # Into the same file: its owner and group stay, and a reader sees the one or the other.
    with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(run.prefix.access, timeout=5.0)) as target:
        source.backup(target)
        with target:
            target.executemany("UPDATE keys SET revoked = ? WHERE id = ?", [(at, key) for key, at in own.items()])


def _revoked(path: Path) -> dict[str, str]:
    """When each key of a database was revoked, by id; empty where it cannot be read, which stops no undo."""
    name, query = f"{path.absolute().as_uri()}?mode=ro", "SELECT id, revoked FROM keys WHERE revoked IS NOT NULL"
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(name, uri=True, timeout=5.0)) as database:
        return dict(database.execute(query))
    return {}


def _put_audit(run: RestoreRun, record: StepRecord) -> None:
    folder = _audit_folder(run)
    for file in run.staged.manifest.files:
        source, name = run.staged.new(file.path), file.path.partition("/")[2]
        if file.path.startswith(f"{AUDIT}/") and not _has_lines(run.prefix.audit / name, source):
            make_folder(folder, PRIVATE)
            partial = folder / f".{name}.partial"
            shutil.copyfile(source, partial)
            partial.chmod(0o600)
            partial.rename(folder / name)
            sync_folder(folder)
            record.note = f"in {folder.name}"


def _audit_folder(run: RestoreRun) -> Path:
    # Lines of two logs are never mixed: what this host lacks lies beside its own.
    manifest = run.staged.manifest
    stamp = "".join(letter for letter in manifest.time if letter.isalnum())
    return run.prefix.audit / f"restored-{manifest.host.fingerprint[:12]}-{stamp}"


def _has_lines(mine: Path, theirs: Path) -> bool:
    """Whether a log of this host begins with all of the backup's."""
    if not mine.is_file() or mine.stat().st_size < theirs.stat().st_size:
        return False
    with mine.open("rb") as one, theirs.open("rb") as other:
        while block := other.read(1 << 20):
            if one.read(len(block)) != block:
                return False
    return True


def _audit_back(run: RestoreRun) -> None:
    shutil.rmtree(_audit_folder(run), ignore_errors=True)


def _put_site(run: RestoreRun, _record: StepRecord) -> None:
    write_file(run.prefix.site_file, run.staged.new(SITE).read_bytes())


def _has_site(run: RestoreRun) -> bool:
    return run.staged.holds(SITE)


def _site_back(run: RestoreRun) -> None:
    run.staged.check_old()
    old = run.staged.old(SITE)
    if old.is_file():
        write_file(run.prefix.site_file, old.read_bytes())
    else:
        run.prefix.site_file.unlink(missing_ok=True)


def _check(run: RestoreRun, _record: StepRecord) -> None:
    prefix = run.prefix
    try:
        if read_floors(prefix).raised(run.staged.manifest.floors) != read_floors(prefix):
            raise _gate_failed("floors.json", "floors as high as those of the backup", "lower ones")
        read_counter(prefix)
        read_site(prefix.site_file)
        if prefix.access.is_file():
            AccessStore(prefix.access, is_read_only=True).list()
        if current_target(prefix) is not None:
            open_current(prefix, run.now())
    except ApplyRestoredError:
        raise
    except ApplianceError as error:
        raise _gate_failed(error.subject, error.expected, error.found) from error


def _finish(run: RestoreRun, _record: StepRecord) -> None:
    _forget(run)


STEPS: tuple[ChangeStep[RestoreRun], ...] = (
    ChangeStep("restore", "the record of the change is there", _record, _forget),
    ChangeStep("floors", "the floors are at least those of the backup", _raise_floors),
    ChangeStep(
        "receipts", "the number of the last receipt is at least that of the backup", _raise_counter, is_needed=_is_own
    ),
    ChangeStep("keys", "keys of the backup are in access.db", _merge_keys, _keys_back, _has_keys),
    ChangeStep("audit", "the audit log of the backup lies beside this host's", _put_audit, _audit_back),
    ChangeStep("site", "the site's file is that of the backup", _put_site, _site_back, _has_site),
    ChangeStep("restored", "nothing: everything that was restored is opened", _check),
    ChangeStep("forget", "the record and the staged files are gone", _finish, is_final=True),
)
"""The steps of a restore, in their order."""


def _gate_failed(subject: str, expected: str, found: str) -> ApplyRestoredError:
    return ApplyRestoredError(
        "restore.gate",
        subject,
        expected=expected,
        found=found,
        hint="what was there before is back, but for floors that rose; use another backup",
    )


def _not_undone(first: BaseException, error: ApplianceError | OSError) -> ApplianceError:
    return ApplyBrokenError(
        "restore.not-undone",
        "the keys or the configuration of this host",
        expected="what was there before the restore",
        found=f"{error}; the restore had failed with: {first}",
        hint="mend that, then run the same restore again",
    )
