"""The publisher's TUF repository: one writer, all products of a trust root.

Owns adding a bundle to targets. Files appear in an order that leaves a reader with a whole repository at every instant:
target, targets, snapshot, and the timestamp that names them last.
"""

from __future__ import annotations

from datetime import datetime

from appliance.keys.metadata import write_snapshot, write_targets
from appliance.keys.workspace import Workspace
from bundles.layout import target_name, target_path
from bundles.medium import Medium
from signing.chain import Walked, walk
from signing.digest import Digest, sha256
from signing.errors import DamagedError, UsageError
from signing.floors import Floors
from signing.roles import MAX_BYTES
from signing.strictjson import Json, load_canonical


def publish(workspace: Workspace, name: str, version: str, manifest: bytes, now: datetime) -> bool:
    """Add a bundle to the newest targets, as `current`; other versions of the same name become `allowed`.

    Args:
        workspace: with the keys of targets and builder.
        name: the bundle's name.
        version: its version.
        manifest: bytes of its OCI manifest.
        now: the time that the signer states, in UTC.

    Returns:
        False where exactly this was published already; nothing is signed or written then.

    Raises:
        NotTrustedError: the repository in the workspace is not covered by its own root.
        UsageError: a key is not here, or this version was revoked.
    """
    repository = workspace.repository
    walked = _walk(workspace)
    current = load_canonical(
        _read(repository, f"{walked.targets.version}.targets.json"), "targets.json", MAX_BYTES["targets"]
    )
    before = current["signed"]["targets"]
    entries = _with_bundle(before, name, version, manifest)
    repository.write(target_path(name, version, sha256(manifest)), manifest)
    if entries == before:
        return False
    number = walked.targets.version + 1
    targets = write_targets(number, entries, workspace.key("targets"), now)
    files = write_snapshot(walked.floors.snapshot + 1, targets, number, workspace.key("builder"), now)
    repository.write(f"metadata/{number}.targets.json", targets)
    for file, data in files.items():
        repository.write(f"metadata/{file}", data)
    return True


def published_manifest(workspace: Workspace, name: str, version: str) -> Digest | None:
    """The manifest digest that this version was published with, or None."""
    entry = _walk(workspace).targets.entries.get(target_name(name, version))
    return entry.sha256 if entry else None


def read_newest(workspace: Workspace) -> dict[str, bytes]:
    """The metadata files that a bundle carries, by name: every root, and the newest timestamp, snapshot and targets."""
    repository = workspace.repository
    walked = _walk(workspace)
    names = [f"{number}.root.json" for number in range(1, walked.root.version + 1)]
    names += [f"{walked.floors.snapshot}.snapshot.json", f"{walked.targets.version}.targets.json", "timestamp.json"]
    return {name: _read(repository, name) for name in names}


def _walk(workspace: Workspace) -> Walked:
    repository = workspace.repository
    return walk(
        workspace.root_file.read_bytes(), lambda file, most: repository.read(f"metadata/{file}", most), Floors()
    )


def _with_bundle(entries: dict[str, Json], name: str, version: str, manifest: bytes) -> dict[str, Json]:
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
        other: {**entry, "custom": {**entry["custom"], "status": "allowed"}}
        if other.startswith(f"bundles/{name}/") and other != target and entry["custom"]["status"] == "current"
        else entry
        for other, entry in entries.items()
    }
    updated[target] = {
        "length": len(manifest),
        "hashes": {"sha256": sha256(manifest)},
        "custom": {"status": "current", "statements": []},
    }
    return updated


def _read(repository: Medium, name: str) -> bytes:
    data = repository.read(f"metadata/{name}", MAX_BYTES["targets"])
    if data is None:
        raise DamagedError(
            "repository.missing",
            f"{repository.root}/metadata/{name}",
            expected="a file of the repository",
            found="none",
            hint="restore trust/repository from a backup",
        )
    return data
