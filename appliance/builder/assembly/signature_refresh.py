"""What people have signed comes back into the bundles that it is about.

Owns the order of it: the repository's files first, then what the newest root's people have signed: `BOOT/` and the
signatures in other people's formats. It signs nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from appliance.builder.assembly import attestations
from appliance.builder.bare_host import boot_folder
from appliance.keys.bundle_metadata import renew
from appliance.keys.repository import published
from appliance.keys.requests.request import Request
from appliance.keys.workspace import Workspace


def refresh_signatures(workspace: Workspace, request: Request, now: datetime) -> tuple[Path, ...]:
    """Bring the bundles of a workspace up to date after a request was signed or asked.

    Args:
        workspace: locked by the caller.
        request: complete or not; only a complete one's signatures are put into bundles.
        now: the clock, in UTC.

    Returns:
        The folders of the bundles that were brought up to date.
    """
    bundles = renew(workspace, request, now)
    if request.is_complete:
        root = published(workspace).walked.root_bytes
        boot_folder.carry(workspace, root, bundles)
        attestations.carry(workspace, root, bundles)
    return bundles
