"""How files of any TUF repository are read: `signing.roles` without what this project asks on top (TRUST 2).

TUF allows, and the product refuses: another form of the same JSON; fields that nobody defined; `x-appliance-…` and
`custom` left out, and lengths and hashes of metadata; a key id that is not the digest of its key; keys of other kinds;
one key in several roles; signatures by strangers and such that fail, which count for nothing; a threshold that nobody
can reach. Refused here as there: delegations, and a role or file that names a key twice.

The walk, the counting of distinct keys and the versions are the product's own code: `signing.chain`, `signing.roles`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from signing import roles
from signing.digest import Digest, parse_digest, sha256
from signing.errors import NotTrustedError
from signing.floors import Floors
from signing.keys import PublicKey, key_from_json
from signing.roles import MAX_BYTES, Envelope, FileMeta, Pointer, Role, Root, TargetEntry, Targets
from signing.strictjson import Json, load
from tests.schemes import FOREIGN

T = TypeVar("T")


def parse_root(data: bytes, subject: str) -> tuple[Root, Envelope]:
    envelope = _open(data, "root", subject)
    keys = {
        key_id: key
        for key_id, value in _get(envelope.signed, "keys", dict, subject).items()
        if (key := _key(value, subject)) is not None
    }
    named = _get(envelope.signed, "roles", dict, subject)
    every = {name: _role(_get(named, name, dict, subject), keys, subject) for name in roles.ROLES}
    return Root(envelope.version, envelope.expires, "", "", every), envelope


def parse_pointer(data: bytes, role: Role, kind: str, points_to: str, subject: str) -> Pointer:
    envelope = _open(data, kind, subject)
    check_signatures(envelope, role, subject)
    meta = _get(_get(envelope.signed, "meta", dict, subject), points_to, dict, subject)
    return Pointer(
        envelope.version,
        envelope.expires,
        AnyMeta(
            _number(meta, "version", subject, low=1),
            _number(meta, "length", subject) if "length" in meta else ANY_LENGTH,
            _hash(meta, subject) if "hashes" in meta else ANY_HASH,
        ),
    )


def parse_targets(data: bytes, role: Role, subject: str) -> tuple[Targets, tuple[PublicKey, ...]]:
    envelope = _open(data, "targets", subject)
    signers = check_signatures(envelope, role, subject)
    if "delegations" in envelope.signed:
        raise _refuse(subject, "flat targets", "delegations")
    entries = {
        name: TargetEntry(_number(value, "length", subject), _hash(value, subject), "current", ())
        for name, value in _get(envelope.signed, "targets", dict, subject).items()
        if isinstance(value, dict)
    }
    return Targets(envelope.version, envelope.expires, "", entries), signers


def check_signatures(
    envelope: Envelope, role: Role, subject: str, others: tuple[Role, ...] = ()
) -> tuple[PublicKey, ...]:
    named = [key_id for key_id, _ in envelope.signatures]
    if len(set(named)) != len(named):
        raise _refuse(subject, "one signature for each key", "two")
    message = envelope.message()
    good = tuple(pair for pair in envelope.signatures if _signed_by(role, *pair, message, subject))
    return roles.check_signatures(replace(envelope, signatures=good), role, subject)


ANY_LENGTH = -1
ANY_HASH = Digest("")


@dataclass(frozen=True)
class AnyMeta(FileMeta):
    """What one file states about another, where it may state less than ours must."""

    def covers(self, data: bytes) -> bool:
        return self.length in (ANY_LENGTH, len(data)) and self.sha256 in (ANY_HASH, sha256(data))


class AnyFloors(Floors):
    """Floors of TUF alone: no cap on how far a version may jump, and a replaced key of snapshot resets targets, too.

    There the only record of the last version of targets is the snapshot, which 5.3.11 deletes.
    """

    def check(self, role: str, version: int, subject: str) -> None:
        super().check(role, min(version, getattr(self, role)), subject)

    def after_rotation(self) -> Floors:
        return replace(super().after_rotation(), targets=0)


def is_over(expires: str, now: datetime) -> bool:
    """Whether a file has expired."""
    return expires <= now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _open(data: bytes, kind: str, subject: str) -> Envelope:
    value = load(data, subject, MAX_BYTES[kind])
    if not isinstance(value, dict):
        raise _refuse(subject, "an object", "something else")
    signed = _get(value, "signed", dict, subject)
    if signed.get("_type") != kind or not re.match(r"1\.[0-9.]+\Z", str(signed.get("spec_version"))):
        raise _refuse(subject, f"a file of type {kind} by TUF 1", "another")
    pairs = tuple(_signature(item, subject) for item in _get(value, "signatures", list, subject))
    expires = _get(signed, "expires", str, subject)
    try:
        datetime.strptime(f"{expires}+0000", "%Y-%m-%dT%H:%M:%SZ%z")
    except ValueError:
        raise _refuse(subject, "expires as YYYY-MM-DDThh:mm:ssZ", expires[:40]) from None
    return Envelope(signed, pairs, _number(signed, "version", subject, low=1), expires)


def _signature(item: Json, subject: str) -> tuple[str, bytes]:
    if not isinstance(item, dict):
        raise _refuse(subject, "an object for each signature", "something else")
    try:
        return _get(item, "keyid", str, subject), bytes.fromhex(_get(item, "sig", str, subject))
    except ValueError:
        raise _refuse(subject, "a signature in hex", "something else") from None


def _signed_by(role: Role, key_id: str, signature: bytes, message: bytes, subject: str) -> bool:
    if key_id not in role.keys:
        return False
    try:
        role.keys[key_id].verify(signature, message, subject)
    except NotTrustedError:
        return False
    return True


def _key(value: Json, subject: str) -> PublicKey | None:
    # A key of a kind that we do not know is nobody's: it signs nothing.
    if not isinstance(value, dict):
        raise _refuse(subject, "an object for each key", "something else")
    known = {name: _get(value, name, kind, subject) for name, kind in (("keytype", str), ("scheme", str))}
    public = _get(_get(value, "keyval", dict, subject), "public", str, subject)
    try:
        return key_from_json({**known, "keyval": {"public": public}}, subject, FOREIGN)
    except NotTrustedError:
        return None


def _role(value: Mapping[str, Json], keys: Mapping[str, PublicKey], subject: str) -> Role:
    named = _get(value, "keyids", list, subject)
    if not all(isinstance(key_id, str) for key_id in named) or len(set(named)) != len(named):
        raise _refuse(subject, "distinct key ids", "others")
    return Role(
        {key_id: keys[key_id] for key_id in named if key_id in keys}, _number(value, "threshold", subject, low=1)
    )


def _hash(value: Mapping[str, Json], subject: str) -> Digest:
    return parse_digest(_get(value, "hashes", dict, subject).get("sha256"), subject)


def _number(value: Mapping[str, Json], name: str, subject: str, low: int = 0) -> int:
    number = _get(value, name, int, subject)
    if isinstance(number, bool) or number < low:
        raise _refuse(subject, f"{name} of at least {low}", str(number))
    return number


def _get(value: Mapping[str, Json], name: str, kind: type[T], subject: str) -> T:
    found = value.get(name)
    if not isinstance(found, kind):
        raise _refuse(subject, f"{name} as {kind.__name__}", type(found).__name__)
    return found


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("metadata.refused", subject, expected=expected, found=found)
