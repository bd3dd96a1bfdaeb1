"""What a host holds and does not need: releases that nothing keeps, models that no kept release names, leftovers.

Owns the decision what `appliance gc` removes. It reads, and changes nothing; `appliance.host.maintenance.cleanup`
removes.

Rules (threat T126):
- the release that serves, the one to return to, pinned and staged ones, and those of an unfinished change are kept;
- of the others, the newest that are complete are kept, as many as the site's `keep` states, together with the one to
  return to; a revoked release does not count;
- only folders whose name is that of a release or of a model's digest are looked at: what a person put beside stays;
- where the list of files of a kept release cannot be read, every model stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.host.change.change_file import RESTORE, UNINSTALL, read_change
from appliance.host.change.way_back import previous_target
from appliance.host.layout.places import OK_FILE, REVOKED_FILE, STAGED_FILE, STORED
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.pins import pinned
from appliance.host.release.installed_files import installed_files
from appliance.host.release.release import current_folder
from signing.digest import Digest
from signing.errors import ApplianceError

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9a-f]{12}\Z")
_MODEL = re.compile(r"[0-9a-f]{64}\Z")
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class KeptRelease:
    """A release that stays, and why, in a few words."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a clean-up would do.

    Args:
        kept: releases that stay.
        releases: folders of releases that go.
        models: folders of models that go.
        leftovers: scratch files, runs of Ansible, and what a superseded change has left.
        size_bytes: what these take on the disk.
        faults: kept releases whose list of files cannot be read; no model goes then.
    """

    kept: tuple[KeptRelease, ...]
    releases: tuple[Path, ...]
    models: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    size_bytes: int
    faults: tuple[ApplianceError, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Everything that goes, in the order in which it is removed."""
        return (*self.releases, *self.models, *self.leftovers)


def find_garbage(prefix: Prefix, keep: int) -> Garbage:
    """Decide what this host does not need.

    Args:
        prefix: the host.
        keep: complete releases to keep beside the one that serves, at least 1.

    Raises:
        UsageError: nothing is installed.
        NotTrustedError, DriftError: the link to the release that serves is wrong, or the record of a change.
    """
    found = [path for path in _folders(prefix.releases) if _RELEASE.match(path.name)]
    kept = _kept(prefix, found, keep)
    releases = tuple(path for path in found if path not in {one.path for one in kept})
    used, faults = _used_models(kept)
    stored = [path for path in _folders(prefix.models) if _MODEL.match(path.name)]
    models = () if faults else tuple(path for path in stored if path.name not in used)
    leftovers = (*_entries(prefix.scratch), *_entries(prefix.runs)[:-1], *_superseded(prefix))
    size = sum(map(disk_bytes, (*releases, *models, *leftovers)))
    return Garbage(kept, releases, models, leftovers, size, faults)


def disk_bytes(path: Path) -> int:
    """What a file or a folder takes on the disk, in bytes; links are not followed."""
    try:
        total = os.lstat(path).st_blocks
        for where, folders, names in os.walk(path):
            total += sum(os.lstat(f"{where}/{name}").st_blocks for name in (*folders, *names))
    except FileNotFoundError:
        return 0  # removed meanwhile
    return total * _BLOCK_BYTES


def _kept(prefix: Prefix, found: list[Path], keep: int) -> tuple[KeptRelease, ...]:
    reasons = {_current(prefix): "serves"}
    if target := previous_target(prefix):
        reasons.setdefault(prefix.opt / target, "the way back")
    if change := read_change(prefix):
        for name in filter(None, (change.release, change.before)):
            reasons.setdefault(prefix.releases / name, f"of an unfinished {change.op}")
    for name in pinned(prefix):
        reasons.setdefault(prefix.releases / name, "pinned")
    for path in found:
        if (path / STAGED_FILE).is_file():
            reasons.setdefault(path, "staged, not switched to")
    others = [path for path in sorted(found, key=_finished, reverse=True) if _counts(path)]
    # The way back is one of those that the site keeps.
    ordered = sorted(others, key=lambda path: reasons.get(path) != "the way back")
    for path in [path for path in ordered if reasons.get(path) != "serves"][:keep]:
        reasons.setdefault(path, f"one of {keep} beside the one that serves")
    return tuple(KeptRelease(path, reasons[path]) for path in found if path in reasons)


def _current(prefix: Prefix) -> Path:
    none = f"to remove what an interrupted install left: appliance uninstall{prefix.option}"
    return current_folder(prefix, none, "run the same `appliance install` again; nothing was removed")


def _finished(path: Path) -> tuple[int, str]:
    try:
        return os.lstat(path / OK_FILE).st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _counts(path: Path) -> bool:
    return (path / OK_FILE).is_file() and not os.path.lexists(path / REVOKED_FILE)


def _superseded(prefix: Prefix) -> Iterator[Path]:
    """What an uninstall or a restore has left that was cut off, where a later change has taken its place."""
    change = read_change(prefix)
    for op, path in ((RESTORE, prefix.state / "restore"), (UNINSTALL, prefix.opt / "uninstall")):
        if (change is None or change.op != op) and path.exists() and not path.is_symlink():
            yield path


def _used_models(kept: tuple[KeptRelease, ...]) -> tuple[frozenset[Digest], tuple[ApplianceError, ...]]:
    used: set[Digest] = set()
    faults: list[ApplianceError] = []
    for one in kept:
        try:
            used |= {file.sha256 for file in installed_files(one.path) if file.kind in STORED}
        except ApplianceError as error:
            faults.append(error)
    return frozenset(used), tuple(faults)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and not path.is_symlink()]


def _entries(folder: Path) -> list[Path]:
    return sorted(_listed(folder), key=lambda path: path.name)


def _listed(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from folder.iterdir()
