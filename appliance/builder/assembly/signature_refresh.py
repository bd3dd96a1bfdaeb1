"""Putting new signatures into the bundles that they are about.

Owns the order: the repository's metadata first, then what the newest root's people have signed. That is `BOOT/`, and
signatures in the formats of other programs. It signs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.builder.assembly import attestation_writer
from appliance.builder.bare_host import boot_writer
from appliance.keys.bundle_renewal import renew
from appliance.keys.signature_requests.request import Request
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The folders of the bundles that were brought up to date, and the attestations that were removed from them."""

    bundles: tuple[Path, ...]
    removed: tuple[Path, ...] = ()


def refresh_signatures(workspace: Workspace, request: Request, now: datetime) -> Refreshed:
    """Bring the bundles of a workspace up to date after a request was written or signed.

    Args:
        workspace: locked by the caller.
        request: complete or not; only signatures of a complete one are put into bundles.
        now: the clock, in UTC.

    Returns:
        What was done.
    """
    if request.is_override:
        return Refreshed(())
    bundles = renew(workspace, request, now)
    if not request.is_complete:
        return Refreshed(bundles)
    root = published(workspace).walked.root_bytes
    boot_writer.update_bundles(workspace, root, bundles)
    return Refreshed(bundles, attestation_writer.update_bundles(workspace, root, bundles))
