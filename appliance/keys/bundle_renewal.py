"""The metadata of the bundles in `dist/`.

Owns its renewal with the signatures that a request has collected. Until enough have signed, a host reports how many
have, and never accepts such a bundle. What is in force, a revocation for example, goes into every bundle of the
workspace, so that each stick carries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from appliance.keys.signature_requests.request import METADATA, Request
from appliance.keys.tuf_repository import read_newest
from appliance.keys.workspace import Workspace
from bundles.medium import Medium
from bundles.oci.layout import METADATA as METADATA_FOLDER


def renew(workspace: Workspace, request: Request, now: datetime) -> tuple[Path, ...]:
    """Write the newest metadata into every bundle that a request is about.

    Args:
        workspace: locked by the caller.
        request: waiting: the bundles that wait for it; complete, and then published: all bundles of the workspace.
        now: the time that the builder states while it waits.

    Returns:
        The bundles' folders.
    """
    concerned = tuple(_concerned(workspace, request))
    for path in concerned:
        medium = Medium(path)
        files = {f"{METADATA_FOLDER}/{name}": data for name, data in read_newest(workspace, request, now).items()}
        for name, data in files.items():
            medium.write(name, data)
        for name in [name for name in medium.walk(METADATA_FOLDER) if name not in files]:
            medium.remove(name)
    return concerned


def _concerned(workspace: Workspace, request: Request) -> Iterator[Path]:
    proposed = [item.path for item in request.items if item.kind == METADATA and item.role == "targets"]
    name = f"{METADATA_FOLDER}/1.root.json" if request.is_complete else (proposed or [""])[0]
    for path in sorted(workspace.dist.iterdir()) if workspace.dist.is_dir() else ():
        if name and not path.name.startswith(".") and (path / name).is_file():
            yield path
