"""Pins: releases that `appliance gc` keeps because a person said so.

Owns the empty files `pins/<release>` below the host's state. They are no part of a release, so that nothing in its
folder differs from what was installed.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.prefix import Prefix, make_folder
from bundles.medium import sync_folder
from signing.errors import UsageError


def pin(prefix: Prefix, release: str) -> bool:
    """Keep a release until it is unpinned.

    Args:
        prefix: the host; its lock is held.
        release: the name of the release's folder.

    Returns:
        False where it was pinned already.

    Raises:
        UsageError: no such release is installed.
    """
    path = _path(prefix, release)
    make_folder(path.parent)
    return write_file(path, b"")


def unpin(prefix: Prefix, release: str) -> bool:
    """Take a pin away; returns False where there was none. The host's lock is held.

    Raises:
        UsageError: no such release is installed.
    """
    path = _path(prefix, release)
    if not path.exists():
        return False
    path.unlink()
    sync_folder(path.parent)
    return True


def pinned(prefix: Prefix) -> frozenset[str]:
    """The names of the folders of pinned releases; some may be gone."""
    folder = pins_folder(prefix)
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def pins_folder(prefix: Prefix) -> Path:
    """Where the pins lie."""
    return prefix.state / "pins"


def _path(prefix: Prefix, release: str) -> Path:
    names = sorted(path.name for path in prefix.releases.iterdir()) if prefix.releases.is_dir() else []
    if release not in names:
        raise UsageError(
            "release.unknown",
            release,
            expected=f"a release of this host: {', '.join(names) or 'none is installed'}",
            found="no such folder",
            hint=f"see the names: ls {prefix.releases}",
        )
    return pins_folder(prefix) / release
