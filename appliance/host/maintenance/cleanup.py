"""Removing what a host does not need, in an order that leaves nothing in between (docs/lifecycle.md, Free space).

Owns the order. What goes is decided by `appliance.host.maintenance.garbage`.

Rules (threat T35):
- the marks of a release are removed first, and durably: a half removed release never looks like a complete one;
- units of engines of removed releases are stopped and removed before their release;
- it needs no free disk: it frees the reserved blocks before it writes, and makes them again at the end;
- no link is followed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.host.change.journal import DONE, STARTED, Journal
from appliance.host.change.way_back import free_reserve, keep_reserve, remove_configuration
from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import OK_FILE, STAGED_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import ENGINE, installed_engines, remove_unit
from appliance.host.maintenance.garbage import Garbage, find_garbage
from appliance.host.maintenance.pins import pinned, pins_folder
from appliance.host.process import systemctl
from bundles.medium import sync_folder
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import worst

_STEP = "gc"


def clean_up(prefix: Prefix, keep: int, now: Callable[[], datetime], on_progress: OnProgress = ignore) -> Garbage:
    """Remove what this host does not need.

    Args:
        prefix: the host.
        keep: complete releases to keep beside the one that serves.
        now: the clock, in UTC, for the journal.
        on_progress: called with the paths done.

    Returns:
        What was removed.

    Raises:
        DamagedError: the list of files of a kept release cannot be read; everything but models was removed.
        UsageError, NotTrustedError, DriftError: as `find_garbage`; nothing was removed.
        BusyError: an install runs.
    """
    find_garbage(prefix, keep)  # refuses before the reserve is given away
    free_reserve(prefix)
    with hold(prefix):
        found = find_garbage(prefix, keep)
        journal = Journal(prefix.journal / "install.jsonl", now)
        for done, path in enumerate(found.paths):
            on_progress(Progress("removing what is not needed", done, len(found.paths), "files"))
            if path in found.releases:
                _note(journal, path.name, STARTED)
                remove_release(prefix, path)
                _note(journal, path.name, DONE)
            else:
                remove_tree(path)
        for name in pinned(prefix):
            if not (prefix.releases / name).is_dir():
                (pins_folder(prefix) / name).unlink()
        on_progress(Progress("removing what is not needed", len(found.paths), max(len(found.paths), 1), "files"))
        keep_reserve(prefix)
    if found.faults:
        raise worst(list(found.faults))
    return found


def remove_release(prefix: Prefix, release: Path) -> None:
    """Remove a release that does not serve, with its units and its saved configuration."""
    if prefix.is_system:
        _remove_engines(prefix, release)
    for name in (OK_FILE, STAGED_FILE):
        (release / name).unlink(missing_ok=True)
    sync_folder(release)
    remove_configuration(prefix, release.name)
    remove_tree(release)


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a whole folder, also where a folder may not be written; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, onerror=_open_and_retry)


def _open_and_retry(act: Callable[..., Any], path: str, error: Any) -> None:
    # Of an ordinary user: a folder that its owner may not write keeps its entries.
    if not isinstance(error[1], PermissionError):
        raise error[1]
    folder = path if os.path.isdir(path) and not os.path.islink(path) else os.path.dirname(path)
    os.chmod(folder, 0o700)
    if act in (os.unlink, os.rmdir):
        act(path)
    else:
        shutil.rmtree(path)


def _remove_engines(prefix: Prefix, release: Path) -> None:
    own = f"{ENGINE}@{release.name.rpartition('-')[2]}-"
    if units := [name for name in installed_engines(prefix) if name.startswith(own)]:
        systemctl.disable(units)
        systemctl.stop(units)
        for name in units:
            remove_unit(prefix, name)
        systemctl.reload()


def _note(journal: Journal, release: str, state: str) -> None:
    with suppress(OSError):  # a full disk refuses the line, and the clean-up is what helps
        journal.write(release, _STEP, state)
