"""The bundles in `dist/` that wait for signatures.

Owns bringing their metadata up to what a request has collected. Until enough have signed, a host that meets such a
bundle says how many have; it never accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from appliance.keys.repository import read_newest
from appliance.keys.request import METADATA, Request
from appliance.keys.workspace import Workspace
from bundles.layout import METADATA as METADATA_FOLDER
from bundles.medium import Medium


def renew(workspace: Workspace, request: Request, now: datetime) -> tuple[Path, ...]:
    """Write the newest metadata into every bundle that waits for a request.

    Args:
        workspace: locked by the caller.
        request: complete, and then published, or still waiting.
        now: the time that the builder states while it waits.

    Returns:
        The bundles' folders.
    """
    waiting = tuple(_waiting(workspace, request))
    for path in waiting:
        medium = Medium(path)
        files = {f"{METADATA_FOLDER}/{name}": data for name, data in read_newest(workspace, request, now).items()}
        for name, data in files.items():
            medium.write(name, data)
        for name in medium.walk(METADATA_FOLDER):
            if name not in files:
                (path / name).unlink()
    return waiting


def _waiting(workspace: Workspace, request: Request) -> Iterator[Path]:
    proposed = [item.path for item in request.items if item.kind == METADATA and item.path.endswith(".targets.json")]
    for path in sorted(workspace.dist.iterdir()) if workspace.dist.is_dir() else ():
        if proposed and not path.name.startswith(".") and (path / proposed[0]).is_file():
            yield path
