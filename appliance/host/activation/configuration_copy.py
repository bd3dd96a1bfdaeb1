"""The copy of a release's configuration that a change of it keeps until the change is complete.

Owns the folder `configuration/` below the host's state, and the way back from an interrupted change. It never renders
and never starts anything.

Rules (threat T35):
- the copy is complete and durable before the first file of the release is changed: it gets its name by one rename;
- it is removed only when the new configuration is complete, or when the old one is back;
- so every command that finds the copy restores it. The release then has its configuration from before the change.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from appliance.host.layout.atomic_file import partial_path, write_file
from appliance.host.layout.places import FACTS_FILE, OK_FILE, SITE_FILE, is_rendered
from appliance.host.layout.prefix import PRIVATE, Prefix, make_folder
from bundles.medium import sync_folder

_FOLDER = "configuration"


def copy_folder(prefix: Prefix) -> Path:
    """Where the copy lies while a change of the configuration is unfinished; its one folder is named as the release."""
    return prefix.state / _FOLDER


def keep_configuration(prefix: Prefix, release: Path) -> None:
    """Copy the rendered files, the site's file and the facts of a complete release, durably.

    Args:
        prefix: the host; the caller holds its lock.
        release: the release's folder.
    """
    partial = prefix.state / f".{_FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    copy = partial / release.name
    make_folder(partial, PRIVATE)
    make_folder(copy, PRIVATE)
    for name in _held(release):
        make_folder((copy / name).parent, PRIVATE)
        write_file(copy / name, (release / name).read_bytes(), (release / name).stat().st_mode & 0o7777)
    sync_folder(copy)
    sync_folder(partial)
    os.rename(partial, copy_folder(prefix))
    sync_folder(prefix.state)


def restore_configuration(prefix: Prefix) -> Path | None:
    """Put the configuration back that an unfinished change has kept, and remove the copy.

    Args:
        prefix: the host; the caller holds its lock.

    Returns:
        The folder of the release; None where no change is unfinished, or where its release is gone.
    """
    name = unfinished_release(prefix)
    if name is None:
        shutil.rmtree(copy_folder(prefix), ignore_errors=True)
        return None
    release, copy = prefix.releases / name, copy_folder(prefix) / name
    if release.is_dir():
        kept = _held(copy)
        # Names that only the new configuration has.
        for extra in sorted(set(_held(release)) - set(kept)):
            (release / extra).unlink()
            sync_folder((release / extra).parent)
        for path in kept:
            write_file(release / path, (copy / path).read_bytes(), (copy / path).stat().st_mode & 0o7777)
            # What a kill left of the new file, where the old one was not replaced yet.
            partial_path(release / path).unlink(missing_ok=True)
    forget_configuration(prefix)
    return release if release.is_dir() else None


def forget_configuration(prefix: Prefix) -> None:
    """Remove the copy: the configuration that the release holds is complete."""
    gone = prefix.state / f".{_FOLDER}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if copy_folder(prefix).is_dir():
        os.rename(copy_folder(prefix), gone)
        sync_folder(prefix.state)
        shutil.rmtree(gone, ignore_errors=True)


def unfinished_release(prefix: Prefix) -> str | None:
    """The folder name of the release whose configuration was being changed; None where no change is unfinished."""
    try:
        names = os.listdir(copy_folder(prefix))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return names[0] if len(names) == 1 else None


def _held(folder: Path) -> list[str]:
    """The names of the files of a release, or of a copy, that a change of the configuration may write."""
    found = [name for name in (FACTS_FILE, OK_FILE, SITE_FILE) if (folder / name).is_file()]
    for path in sorted((folder / "config").rglob("*")):
        name = str(path.relative_to(folder))
        if is_rendered(name) and path.is_file() and not path.is_symlink():
            found.append(name)
    return found
