"""Changes of what is published: a bundle becomes current, or is revoked.

Owns the next targets file. Who signs it, and when it is in force, is `appliance.keys.ceremony`'s.

Rules:
- a new version becomes `current`, and the versions of the same name before it `allowed`;
- a revoked version stays revoked: building it again is refused;
- while a targets file waits for signatures, a further change makes it anew, with both changes, and it is signed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from appliance.keys.ceremony import request_signatures, waiting
from appliance.keys.signature_requests.request import METADATA, Item, Request
from appliance.keys.tuf_metadata import target_entry, targets_body
from appliance.keys.tuf_repository import Published, published
from appliance.keys.workspace import Workspace
from bundles.oci.layout import target_name, target_path
from signing.digest import sha256
from signing.errors import UsageError
from signing.strictjson import Json

Entries = dict[str, Json]


def publish(
    workspace: Workspace,
    name: str,
    version: str,
    manifest: bytes,
    now: datetime,
    *,
    items: Sequence[Item] = (),
    statements: Iterable[str] = (),
    install_by: str = "",
) -> Request | None:
    """Add a bundle to the newest targets, as `current`; other versions of the same name become `allowed`.

    Args:
        workspace: locked by the caller.
        name: the bundle's name.
        version: its version.
        manifest: bytes of its OCI manifest.
        now: the time that the signers state, in UTC.
        items: further messages that are to be signed with it: statements, `BOOT`.
        statements: those that readers must find in the bundle, by name (`bundles.attestation.required_statements`).
        install_by: the last day on which it is meant to be installed, in the form of metadata's times.

    Returns:
        The request: complete, and then published, or waiting for signatures. None where exactly this was published
        already; nothing is signed or written then.

    Raises:
        NotTrustedError: the repository in the workspace is not covered by its own root.
        UsageError: a key is not here, or this version was revoked.
        ApplianceError: the copy of the repository is stale, or something expires too early.
    """
    current = published(workspace)
    workspace.repository.write(target_path(name, version, sha256(manifest)), manifest)
    pending = _pending(workspace, current)
    entries = _with_bundle(_entries(pending, current), name, version, manifest, sorted(statements))
    if entries == current.entries:
        return None
    return _request(workspace, current, pending, entries, items, install_by, now)


def revoke(workspace: Workspace, name: str, version: str, now: datetime) -> Request | None:
    """Mark a published bundle as revoked, for ever.

    Args:
        workspace: locked by the caller.
        name, version: of a published bundle.
        now: the time that the signers state, in UTC.

    Returns:
        The request, as `publish`; None where it was revoked already.

    Raises:
        UsageError: no such bundle was published.
    """
    current = published(workspace)
    pending = _pending(workspace, current)
    entries = _entries(pending, current)
    target = target_name(name, version)
    if target not in entries:
        known = sorted(entry.removeprefix("bundles/").removesuffix("/manifest.json") for entry in entries)
        raise UsageError(
            "bundle.unknown",
            f"{name} {version}",
            expected="a published bundle",
            found=", ".join(known) or "no bundles",
            hint="write it as NAME VERSION",
        )
    if current.entries.get(target, {}).get("custom", {}).get("status") == "revoked":
        return None
    entries[target] = _with_status(entries[target], "revoked")
    return _request(workspace, current, pending, entries, (), "", now)


def _request(
    workspace: Workspace,
    current: Published,
    pending: Request | None,
    entries: Entries,
    items: Sequence[Item],
    install_by: str,
    now: datetime,
) -> Request:
    kept = {item.path: item for item in (pending.items if pending else ()) if item.kind != METADATA}
    kept |= {item.path: item for item in items}
    install_by = max(install_by, pending.install_by if pending else "")
    if pending and entries == _entries(pending, current):
        same = Request((pending.items[0], *kept.values()), pending.before, install_by)
        if (same.items, same.install_by) == (pending.items, pending.install_by):
            return pending
    body = targets_body(current.walked.targets.version + 1, entries, now)
    return request_signatures(
        workspace, Request((Item.of_metadata(body), *kept.values()), current.before, install_by), now
    )


def _pending(workspace: Workspace, current: Published) -> Request | None:
    found = waiting(workspace, f"targets-{current.walked.targets.version + 1}")
    # One that was asked under another root will never be published.
    return found if found is not None and dict(found.before) == current.before else None


def _entries(pending: Request | None, current: Published) -> Entries:
    return dict(pending.items[0].body["targets"]) if pending else current.entries


def _with_bundle(entries: Entries, name: str, version: str, manifest: bytes, statements: list[str]) -> Entries:
    target = target_name(name, version)
    if entries.get(target, {}).get("custom", {}).get("status") == "revoked":
        raise UsageError(
            "bundle.revoked",
            target,
            expected="a version that was not revoked",
            found="a revoked one",
            hint="give the recipe a new version",
        )
    updated = {
        other: _with_status(entry, "allowed")
        if other.startswith(f"bundles/{name}/") and other != target and entry["custom"]["status"] == "current"
        else entry
        for other, entry in entries.items()
    }
    updated[target] = target_entry(len(manifest), sha256(manifest), "current", statements)
    return updated


def _with_status(entry: Json, status: str) -> Json:
    return {**entry, "custom": {**entry["custom"], "status": status}}
