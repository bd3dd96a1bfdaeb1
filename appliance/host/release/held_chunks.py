"""The chunks that a host holds already, in the files of its releases and in its store of models.

Owns the list of places. Nothing in it is trusted: the copy hashes each chunk before it counts (threat T25). So a
release that is damaged or half copied may be listed, too; what cannot be read is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from appliance.host.release.installed_files import installed_files
from bundles.chunks.check import placed
from bundles.chunks.source import Seed, Seeds
from bundles.contents.contents import File
from signing.digest import Digest
from signing.errors import ApplianceError

_MAX_PLACES = 4
"""Places that are listed of one chunk: the first that is right ends the search."""


def held_chunks(prefix: Prefix) -> Seeds:
    """List where this host should hold chunks, by digest.

    Args:
        prefix: the host; it may have no release.

    Returns:
        At most four places for each. Files that are missing, or have another length, are left out.
    """
    found: dict[Digest, dict[Seed, None]] = {}
    for release in sorted(prefix.releases.glob("*")):
        for file in _files_of(release):
            path = place(prefix, release, file)
            if not _has_size(path, file.size):
                continue
            for start, chunk in placed(file):
                places = found.setdefault(chunk.sha256, {})
                if len(places) < _MAX_PLACES:
                    places[Seed(path, start)] = None
    return {digest: tuple(places) for digest, places in found.items()}


def _files_of(release: Path) -> tuple[File, ...]:
    """The files that a release should have; none where its list cannot be read."""
    try:
        return installed_files(release, is_named=False)
    except (ApplianceError, OSError):
        return ()


def _has_size(path: Path, size: int) -> bool:
    try:
        return os.lstat(path).st_size == size
    except OSError:
        return False
