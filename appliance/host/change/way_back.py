"""The way back: what lies on the disk so that a return to an earlier release needs no Python, no venv and no free disk.

Owns these places; the switch writes them, and the script of `rollback` and the units of the return read them:

    /opt/appliance/previous -> releases/<release>   the release to return to; a return renames this link to `current`
    /etc/appliance/return/<release>/site.yaml       the site's file that the release was configured from
    /etc/appliance/return/<release>/units/*         its units, as systemd reads them
    /etc/appliance/return/<release>/release/*       what was rendered into its folder: RELEASE.json, site.yaml, config/*
    /etc/appliance/return/<release>/complete        empty; written last: without it the folder counts as absent
    /var/lib/appliance/.reserve, /etc/appliance/.reserve   real blocks, removed when the disk is full, made again later

Rules:
- the folder of a release is written before anything that it holds is changed, and is complete before the switch;
- to put a release back is to copy `release/` over its folder, `units/` to `/etc/systemd/system`, and `site.yaml` to
  `/etc/appliance`; each file by rename. That can be repeated, so an interrupted return is run again from its begin.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from appliance.host.layout.atomic_file import partial_path, write_file
from appliance.host.layout.places import FACTS_FILE, SITE_FILE, is_rendered
from appliance.host.layout.prefix import PUBLIC, Prefix, make_folder
from appliance.host.layout.unit_files import RENDERED
from bundles.durability import sync_file_system
from bundles.medium import sync_folder

COMPLETE = "complete"
STATE_RESERVE_BYTES, ETC_RESERVE_BYTES = 1 << 20, 64 << 10


def previous_link(prefix: Prefix) -> Path:
    """The link to the release that a return makes current."""
    return prefix.opt / "previous"


def return_folder(prefix: Prefix, release: str) -> Path:
    """The folder with the configuration of one release, by the name of the release's folder."""
    return prefix.etc / "return" / release


def point_previous(prefix: Prefix, target: str | None) -> None:
    """Make the link `previous` name a release, or remove it, durably.

    Args:
        prefix: the host.
        target: as `current` would name it: a path relative to the link; None removes the link.
    """
    link = previous_link(prefix)
    if target is None:
        link.unlink(missing_ok=True)
    else:
        partial = prefix.opt / ".previous.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        os.rename(partial, link)
    sync_folder(prefix.opt)


def previous_target(prefix: Prefix) -> str | None:
    """Read the link to the release to return to; None where there is none."""
    try:
        return os.readlink(previous_link(prefix))
    except OSError:
        return None


def save_configuration(prefix: Prefix, release: Path) -> bool:
    """Copy the rendered files of a complete release to its folder below `return/`, durably.

    Args:
        prefix: the host.
        release: its folder; nothing in it is changed.

    Returns:
        False where this very copy was there already; then nothing is written.
    """
    folder = return_folder(prefix, release.name)
    wanted = _copies(release)
    if (folder / COMPLETE).is_file() and _held(folder) == wanted:
        return False
    remove_configuration(prefix, release.name)
    for name in ("units", "release"):
        make_folder(folder / name, PUBLIC)
    for name, data in wanted.items():
        make_folder((folder / name).parent, PUBLIC)
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o644)
    sync_file_system(folder)
    write_file(folder / COMPLETE, b"")
    return True


def _copies(release: Path) -> dict[str, bytes]:
    """The files of a release's folder below `return/`, by path, as they should be."""
    copies = {}
    for name in saved_names(release):
        data = copies[f"release/{name}"] = (release / name).read_bytes()
        if name.startswith(f"{RENDERED}/"):
            copies[f"units/{Path(name).name}"] = data
        if name == SITE_FILE:
            copies[SITE_FILE] = data
    return copies


def _held(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / COMPLETE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def saved_names(release: Path) -> list[str]:
    """The rendered files of a release that exist, by path below its folder."""
    paths = [*(release / "config").rglob("*"), release / FACTS_FILE, release / SITE_FILE]
    found = [path.relative_to(release) for path in paths if path.is_file() and not path.is_symlink()]
    names = [str(path) for path in found if not path.name.endswith(".partial")]
    return sorted(name for name in names if name in (FACTS_FILE, SITE_FILE) or is_rendered(name))


def restore_configuration(prefix: Prefix, release: Path) -> bool:
    """Copy the saved files of a release back into its folder.

    Args:
        prefix: the host.
        release: its folder, which exists.

    Returns:
        False where nothing complete was saved; then nothing is changed.
    """
    folder = return_folder(prefix, release.name)
    if not (folder / COMPLETE).is_file():
        return False
    saved = folder / "release"
    names = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    for name in sorted(names):
        make_folder((release / name).parent, PUBLIC)
        write_file(release / name, (saved / name).read_bytes())
        # What a kill left of the new file, where the old one was not replaced yet: nothing signed names it.
        partial_path(release / name).unlink(missing_ok=True)
    for name in saved_names(release):
        if name not in names:
            (release / name).unlink()
    return True


def remove_configuration(prefix: Prefix, release: str) -> None:
    """Remove the saved files of a release; first the mark that they are complete."""
    folder = return_folder(prefix, release)
    if folder.is_dir():
        (folder / COMPLETE).unlink(missing_ok=True)
        sync_folder(folder)
        shutil.rmtree(folder)
    with suppress(OSError):
        folder.parent.rmdir()  # once the last one has gone


def keep_reserve(prefix: Prefix) -> bool:
    """Make the two files of reserved blocks that are missing or too short.

    Returns:
        False where the disk has no room for them; the next call tries again.
    """
    is_kept = True
    for path, size in reserves(prefix):
        try:
            if path.is_file() and path.stat().st_size == size:
                continue
            write_file(path, os.urandom(size), 0o600)
        except OSError:
            is_kept = False
            with suppress(OSError):
                path.with_name(f".{path.name}.partial").unlink(missing_ok=True)
    return is_kept


def free_reserve(prefix: Prefix) -> None:
    """Remove the reserved blocks, for a return or a clean-up on a full disk."""
    for path, _ in reserves(prefix):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def reserves(prefix: Prefix) -> tuple[tuple[Path, int], ...]:
    """The files of reserved blocks, each with its size in bytes."""
    return (prefix.state / ".reserve", STATE_RESERVE_BYTES), (prefix.etc / ".reserve", ETC_RESERVE_BYTES)
