"""Writing TUF metadata: values in, signed bytes out.

Owns the form of root, targets, snapshot and timestamp (TRUST 2). It keeps no files: `appliance.keys.tuf_repository`
does.

Source: TUF specification 1.0.34, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.keys.signers.signer import Signer, sign_checked
from signing.digest import Digest, sha256
from signing.keys import PublicKey, key_to_json
from signing.roles import DEVELOPMENT, REVOKED_KEYS
from signing.strictjson import Json, to_file, to_signing

SPEC_VERSION = "1.0.34"
LIFETIMES = {"root": 3650, "targets": 1825, "snapshot": 1825, "timestamp": 1825}
"""Days until each role expires: long, since a site without a network refreshes when a person carries a stick."""


RoleKeys = Mapping[str, tuple[Sequence[PublicKey], int]]
"""Who may sign for each of TUF's four roles, and how many must."""


@dataclass(frozen=True, slots=True)
class Times:
    """The two times that people sign in a root or targets file, as `format_time` writes them.

    Args:
        expires: until when it counts.
        issued: the time that the signers state; it raises the floors of hosts.
    """

    expires: str
    issued: str


def root_body(
    version: int, roles: RoleKeys, now: datetime, profile: str = "", revoked: Iterable[Digest] = ()
) -> dict[str, Json]:
    """The `signed` part of a new root file, without signatures.

    Args:
        version: one more than the last.
        roles: all four.
        now: the time that the signers state; it raises the floors of hosts.
        profile: `development`, or empty.
        revoked: key ids of all keys that this root and those before it revoke; none of them is in a role.
    """
    return root_of(version, _times("root", now), roles, profile, revoked)


def root_of(
    version: int, times: Times, roles: RoleKeys, profile: str = "", revoked: Iterable[Digest] = ()
) -> dict[str, Json]:
    """The one form of the `signed` part of a root file with these values; see `root_body`."""
    keys = {key.key_id: key_to_json(key) for people, _ in roles.values() for key in people}
    ids = sorted(set(revoked))
    return {
        **_common("root", version, times.expires),
        "consistent_snapshot": True,
        "keys": keys,
        "roles": {name: _role(people, threshold) for name, (people, threshold) in roles.items()},
        "x-appliance-issued": times.issued,
        **({"x-appliance-profile": profile} if profile else {}),
        **({REVOKED_KEYS: list(ids)} if ids else {}),
    }


def targets_body(version: int, entries: dict[str, Json], now: datetime) -> dict[str, Json]:
    """The `signed` part of a new targets file, without signatures.

    Args:
        version: one more than the last.
        entries: by target name, as `target_entry` makes them.
        now: the time that the signers state; it raises the floors of hosts.
    """
    return targets_of(version, _times("targets", now), entries)


def targets_of(version: int, times: Times, entries: Mapping[str, Json]) -> dict[str, Json]:
    """The one form of the `signed` part of a targets file with these values; see `targets_body`."""
    common = _common("targets", version, times.expires)
    return {**common, "targets": dict(entries), "x-appliance-issued": times.issued}


def target_entry(length: int, digest: Digest, status: str, statements: Sequence[str]) -> Json:
    """What a targets file states about one target.

    Args:
        length: of its manifest, in bytes.
        digest: the sha256 of its manifest.
        status: one of TRUST 2.
        statements: the names that the signers require, in their order.
    """
    custom = {"status": status, "statements": list(statements)}
    return {"length": length, "hashes": {"sha256": digest}, "custom": custom}


def new_root(root: Signer, targets: Signer, builder: Signer, now: datetime) -> bytes:
    """A development root, version 1: one key for each role, threshold 1 of 1, marked as development."""
    roles = {
        "root": ([root.public], 1),
        "targets": ([targets.public], 1),
        "snapshot": ([builder.public], 1),
        "timestamp": ([builder.public], 1),
    }
    return sign(root_body(1, roles, now, DEVELOPMENT), [root])


def new_repository(root: bytes, targets: Signer, builder: Signer, now: datetime) -> dict[str, bytes]:
    """The files of a repository without targets, by name below `metadata/`."""
    targets_bytes = write_targets(1, {}, targets, now)
    return {"1.root.json": root, "1.targets.json": targets_bytes, **write_snapshot(1, targets_bytes, 1, builder, now)}


def write_targets(version: int, entries: dict[str, Json], key: Signer, now: datetime) -> bytes:
    """A targets file that one person signs; see `targets_body`."""
    return sign(targets_body(version, entries, now), [key])


def write_snapshot(
    version: int, targets: bytes, targets_version: int, builder: Signer, now: datetime
) -> dict[str, bytes]:
    """The snapshot that names a targets file, and the timestamp that names the snapshot, by file name.

    Args:
        version: of both; one more than the last.
        targets: bytes of the targets file.
        targets_version: its version.
        builder: the key that may withhold and postpone, and nothing else.
        now: from which their expiry counts.
    """
    meta = {"targets.json": _meta(targets, targets_version)}
    snapshot = sign({**_common("snapshot", version, _expiry("snapshot", now)), "meta": meta}, [builder])
    named = {"snapshot.json": _meta(snapshot, version)}
    timestamp = sign({**_common("timestamp", version, _expiry("timestamp", now)), "meta": named}, [builder])
    return {f"{version}.snapshot.json": snapshot, "timestamp.json": timestamp}


def sign(signed: dict[str, Json], keys: Sequence[Signer]) -> bytes:
    """Wrap what is to be signed with the signatures of the keys, ordered by key id."""
    message = to_signing(signed)
    subject = f"{signed['_type']}.json"
    signatures = [{"keyid": key.public.key_id, "sig": sign_checked(key, message, subject).hex()} for key in keys]
    return to_file({"signatures": sorted(signatures, key=lambda item: item["keyid"]), "signed": signed})


def format_time(moment: datetime) -> str:
    """`YYYY-MM-DDThh:mm:ssZ`, as TUF writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _times(kind: str, now: datetime) -> Times:
    return Times(_expiry(kind, now), format_time(now))


def _expiry(kind: str, now: datetime) -> str:
    return format_time(now + timedelta(days=LIFETIMES[kind]))


def _common(kind: str, version: int, expires: str) -> dict[str, Json]:
    return {"_type": kind, "spec_version": SPEC_VERSION, "version": version, "expires": expires}


def _role(keys: Sequence[PublicKey], threshold: int) -> Json:
    return {"keyids": sorted(key.key_id for key in keys), "threshold": threshold}


def _meta(data: bytes, version: int) -> Json:
    return {"version": version, "length": len(data), "hashes": {"sha256": sha256(data)}}
