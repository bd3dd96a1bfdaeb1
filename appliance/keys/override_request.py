"""Asking for an expiry override, and writing the one that was signed (TRUST 12).

Owns `overrides/<label>.json` of a workspace: the file that an operator hands to `appliance install --override`. It
publishes nothing: no metadata change, and no host learns of it but the one that gets the file.
"""

from __future__ import annotations

from pathlib import Path

from appliance.keys.signature_requests.request import OVERRIDE, Item, Request, write_request
from appliance.keys.signature_requests.request_text import parse_asked_override
from appliance.keys.tuf_repository import DONE, filed, published
from appliance.keys.workspace import Workspace
from bundles.attestation.expiry_override import ExpiryOverride, parse_override, write_override
from bundles.medium import Medium
from bundles.oci.layout import target_name
from signing.digest import sha256
from signing.errors import NotTrustedError, UsageError


def override_of(workspace: Workspace, name: str, version: str, host: str, site: str, last_day: str) -> Request:
    """The request for an override, without signatures.

    Args:
        workspace: locked by the caller.
        name, version: of a published bundle.
        host: the fingerprint of a host's key, or empty.
        site: the name of a site, or empty.
        last_day: `YYYY-MM-DD`.

    Raises:
        UsageError: no such bundle is published, it is revoked, or a value does not have its form.
    """
    current = published(workspace)
    entry = current.walked.targets.entries.get(target_name(name, version))
    if entry is None or entry.status == "revoked":
        raise UsageError(
            "override.bundle",
            f"{name} {version}",
            expected="a published bundle that is not revoked",
            found="a revoked one" if entry else "no such bundle",
            hint="write it as NAME VERSION",
        )
    override = ExpiryOverride(name, version, entry.sha256, host, site, last_day)
    try:
        parse_override(override.to_payload(), "override")
    except NotTrustedError as error:
        raise UsageError(
            "override.value",
            error.subject,
            expected=error.expected,
            found=error.found,
            hint="appliance trust override --help",
        ) from None
    path = f"overrides/{sha256(override.message)[:16]}.json"
    return Request((Item(OVERRIDE, path, override.message),), current.before)


def write_signed_override(workspace: Workspace, request: Request) -> Path:
    """Write the file of an override that enough people have signed, and file its request away.

    Args:
        workspace: locked by the caller.
        request: complete.

    Returns:
        The file to hand to the operator. Killed before the end, the next run writes the same again.
    """
    [item] = request.items
    signatures = {key_id: request.signatures[path, key_id] for path, key_id in request.signatures}
    medium, name = Medium(workspace.path), f"overrides/{request.label}.json"
    medium.write(name, write_override(parse_asked_override(item), signatures))
    medium.write(f"{DONE}/{request.label}.json", write_request(filed(request)))
    (workspace.requests / f"{request.label}.json").unlink(missing_ok=True)
    return workspace.path / name
