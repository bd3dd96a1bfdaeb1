"""The next trust root: who signs from now on, and how many must.

Owns root N+1 (threats T9, T40). Hosts follow it when the thresholds of root N and of root N+1 have signed it, so both
are asked.

Rules:
- a key that was removed never comes back: somebody may hold a copy of it;
- a key is rotated out, or it is revoked: what a revoked key signed in other formats is refused from then on (TRUST 10).
  Every later root lists it, too;
- where the people of targets change, targets are signed anew in the same request, by the new people;
- a development root stays one: a root for real use begins with `appliance init --ceremony`;
- one new root at a time: the next is asked when this one is signed, or its request is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.keys.ceremony import request_signatures, waiting
from appliance.keys.signature_requests.request import Item, Request
from appliance.keys.signers.pem import create_key, load_key
from appliance.keys.tuf_metadata import RoleKeys, root_body, targets_body
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import Workspace
from signing.errors import ApplianceError, UsageError
from signing.keys import PublicKey
from signing.roles import MAX_BYTES, Role, Root, parse_root

PEOPLE = ("root", "targets")
MIN_PREFIX = 8


@dataclass(frozen=True, slots=True)
class Change:
    """What is to change; nothing at all renews the root's expiry.

    Args:
        remove: fingerprints of keys to rotate out wherever they stand, or their first 8 digits or more.
        revoke: likewise of keys to revoke; also of one that was rotated out before.
        replace_by: takes the place of every removed key of a person.
        add_root, add_targets: keys of new people.
        root_threshold, targets_threshold: how many must sign; None leaves it.
        new_builder: whether the builder gets a new key.
    """

    remove: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()
    replace_by: PublicKey | None = None
    add_root: tuple[PublicKey, ...] = ()
    add_targets: tuple[PublicKey, ...] = ()
    root_threshold: int | None = None
    targets_threshold: int | None = None
    new_builder: bool = False


def rotate(workspace: Workspace, change: Change, now: datetime, items: Sequence[Item] = ()) -> Request:
    """Ask for the next root.

    Args:
        workspace: locked by the caller.
        change: what a root key holder decided.
        now: the time that the signers state, in UTC.
        items: further messages for the same round: `BOOT` under the new root.

    Returns:
        The request: complete, and then in force, or waiting.

    Raises:
        UsageError: a key is unknown, was removed before, or too few would be left.
        ApplianceError: a new root waits already (code `request.waits`), or the copy of the repository is stale.
    """
    current = published(workspace)
    old = current.walked.root
    _refuse_waiting(workspace, old.version + 1)
    past = _past(workspace, old)
    revoked = {key for text in change.revoke for key in _find({*_keys(old), *past}, text)}
    removed = {key for text in change.remove for key in _find(_keys(old), text)} | revoked
    _refuse_returning(past, old, _added(change))
    roles = _new_roles(workspace, old, change, removed)
    revoked_ids = {*old.revoked, *(key.key_id for key in revoked)}
    body = root_body(old.version + 1, roles, now, old.profile, revoked_ids)
    asked = [Item.of_metadata(body)]
    if _differs(old.roles["targets"], roles["targets"]):
        asked.append(Item.of_metadata(targets_body(current.walked.targets.version + 1, current.entries, now)))
    return request_signatures(workspace, Request((*asked, *items), current.before), now)


def _new_roles(workspace: Workspace, old: Root, change: Change, removed: set[PublicKey]) -> RoleKeys:
    roles: dict[str, tuple[Sequence[PublicKey], int]] = {}
    wishes = {
        "root": (change.add_root, change.root_threshold),
        "targets": (change.add_targets, change.targets_threshold),
    }
    for name, (added, threshold) in wishes.items():
        role = old.roles[name]
        replaces = change.replace_by is not None and bool(removed & set(role.keys.values()))
        new = (*added, change.replace_by) if replaces and change.replace_by is not None else added
        keys = tuple(dict.fromkeys([*(key for key in role.keys.values() if key not in removed), *new]))
        roles[name] = (keys, role.threshold if threshold is None else threshold)
        _check_enough(name, *roles[name])
    builder = set(old.roles["timestamp"].keys.values()) | set(old.roles["snapshot"].keys.values())
    if change.new_builder or builder & removed:
        keys = (_new_builder(workspace, old.version + 1),)
        roles["snapshot"] = roles["timestamp"] = (keys, 1)
    else:
        for name in ("snapshot", "timestamp"):
            roles[name] = (tuple(old.roles[name].keys.values()), old.roles[name].threshold)
    return roles


def _check_enough(name: str, keys: Sequence[PublicKey], threshold: int) -> None:
    if not 1 <= threshold <= len(keys):
        raise UsageError(
            "rotation.too-few",
            name,
            expected=f"at least {max(threshold, 1)} keys, as many as must sign",
            found=f"{len(keys)} would be left",
            hint=f"add the key of another person: --add-{name}-key FILE",
        )


def _keys(root: Root) -> set[PublicKey]:
    return {key for role in root.roles.values() for key in role.keys.values()}


def _find(keys: Iterable[PublicKey], text: str) -> Iterable[PublicKey]:
    prefix = "".join(text.split()).replace(":", "").lower()
    known = {key.fingerprint: key for key in keys}
    found = [key for fingerprint, key in known.items() if fingerprint.startswith(prefix)]
    if len(found) != 1 or len(prefix) < MIN_PREFIX:
        raise UsageError(
            "rotation.unknown-key",
            text,
            expected=f"the fingerprint of a key of the trust root, or its first {MIN_PREFIX} digits or more",
            found=", ".join(sorted(known)),
            hint="appliance trust show",
        )
    return found


def _added(change: Change) -> tuple[PublicKey, ...]:
    return (*change.add_root, *change.add_targets, *((change.replace_by,) if change.replace_by else ()))


def _past(workspace: Workspace, root: Root) -> dict[PublicKey, int]:
    """Every key of an older root, with the version of the last that had it."""
    past: dict[PublicKey, int] = {}
    for version in range(1, root.version):
        name = f"{version}.root.json"
        data = workspace.repository.read(f"metadata/{name}", MAX_BYTES["root"])
        if data is not None:
            past |= dict.fromkeys(_keys(parse_root(data, name)[0]), version)
    return past


def _refuse_returning(past: Mapping[PublicKey, int], root: Root, added: Iterable[PublicKey]) -> None:
    now = _keys(root)
    for key in added:
        if key in past and key not in now:
            raise UsageError(
                "rotation.removed-key",
                key.fingerprint,
                expected="a key that was never removed",
                found=f"one that root version {past[key]} had",
                hint="make a new key: appliance key create FILE",
            )


def _refuse_waiting(workspace: Workspace, version: int) -> None:
    label = f"root-{version}"
    if waiting(workspace, label) is not None:
        path = workspace.requests / f"{label}.json"
        raise ApplianceError(
            "request.waits",
            str(path),
            expected="no new root that waits for signatures",
            found="one",
            hint=f"let it be signed, or throw it away, which voids its signatures: rm {path}",
        )


def _new_builder(workspace: Workspace, version: int) -> PublicKey:
    path = workspace.path / "keys" / f"builder-{version}.pem"
    # One that lies there was made for a request that was thrown away.
    return (load_key(path) if path.exists() else create_key(path)).public


def _differs(old: Role, new: tuple[Sequence[PublicKey], int]) -> bool:
    return (set(old.keys.values()), old.threshold) != (set(new[0]), new[1])
