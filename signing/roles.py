"""The four TUF roles: metadata bytes in, typed values out.

Owns what root, timestamp, snapshot and targets files look like (TRUST 2) and the counting of signatures. It never
decides which file is newest: that is `signing.chain`.

Rules (threats T6, T11, T12, T14, T15):
- canonical bytes only; `_type`, `spec_version` 1.0.x, integer versions of at least 1, `expires` in UTC;
- a threshold counts distinct public keys; a key id must be the digest of its key; a key stands once in a role;
- every signature in a file must be by a key of the role and must verify: a stray one is a refusal, not noise;
- delegations are refused; every length and sha256 that TUF leaves optional is required;
- names of targets and statements have a grammar of visible ASCII: none can look like another, or like more text.

Source: TUF specification 1.0.34, sections 4.2 to 4.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from signing.digest import Digest, parse_digest, sha256
from signing.errors import NotTrustedError
from signing.keys import PublicKey, key_from_json
from signing.strictjson import MAX_INT, Json, load_canonical, to_signing

ROLES = ("root", "timestamp", "snapshot", "targets")
MAX_BYTES = {"root": 256 << 10, "timestamp": 16 << 10, "snapshot": 64 << 10, "targets": 4 << 20}
MAX_TARGET_BYTES = 4 << 20
STATUSES = ("current", "allowed", "revoked")
DEVELOPMENT = "development"
REVOKED_KEYS = "x-appliance-revoked-keys"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_HEX = re.compile(r"(?:[0-9a-f]{2}){1,80}\Z")
BUNDLE_TARGET = re.compile(
    r"bundles/([a-z0-9](?:[a-z0-9._-]{0,60}[a-z0-9])?)/([0-9](?:[0-9a-z.-]{0,60}[0-9a-z])?)/manifest\.json\Z"
)
"""The target of a bundle: its name, its version. Nothing else may lie below `bundles/`."""
_PART = "[A-Za-z0-9_+][A-Za-z0-9._+@=-]*"
_OTHER_TARGET = re.compile(rf"(?!bundles(?:/|\Z))(?=.{{1,240}}\Z){_PART}(?:/{_PART})*\Z")
_STATEMENT = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")


@dataclass(frozen=True)
class Role:
    """Who may sign for one role: its keys by key id, and how many of them must."""

    keys: Mapping[str, PublicKey]
    threshold: int


@dataclass(frozen=True)
class Root:
    """A root file: the roles, its profile, the times that its signers stated, and the key ids that they revoked."""

    version: int
    expires: str
    issued: str
    profile: str
    roles: Mapping[str, Role]
    revoked: tuple[Digest, ...] = ()


@dataclass(frozen=True)
class FileMeta:
    """What one metadata file states of another: its version, length in bytes and sha256."""

    version: int
    length: int
    sha256: Digest

    def covers(self, data: bytes) -> bool:
        """Whether bytes have that length and sha256."""
        return len(data) == self.length and sha256(data) == self.sha256


@dataclass(frozen=True)
class Pointer:
    """A timestamp or snapshot file: the newest file of the role after it."""

    version: int
    expires: str
    file: FileMeta


@dataclass(frozen=True)
class TargetEntry:
    """One target: length in bytes, sha256, its status, and the statements that it requires."""

    length: int
    sha256: Digest
    status: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Targets:
    """The targets file: every bundle that the signers stand for."""

    version: int
    expires: str
    issued: str
    entries: Mapping[str, TargetEntry] = field(repr=False)


def parse_root(data: bytes, subject: str) -> tuple[Root, Envelope]:
    """Read a root file. Its signatures are checked by the caller, who knows which root to check them against.

    Raises:
        NotTrustedError: a rule of this module is broken.
    """
    envelope = _open_envelope(data, "root", subject)
    signed = envelope.signed
    if signed.get("consistent_snapshot") is not True:  # TUF 5.3.12
        raise _refuse(subject, "consistent_snapshot true", repr(signed.get("consistent_snapshot")))
    keys_json, roles_json = signed.get("keys"), signed.get("roles")
    if not isinstance(keys_json, dict) or not isinstance(roles_json, dict) or set(roles_json) != set(ROLES):
        raise _refuse(subject, f"keys, and exactly the roles {', '.join(ROLES)}", "others")
    keys = {key_id: _key(key_id, value, subject) for key_id, value in keys_json.items()}
    roles = {name: _role(roles_json[name], keys, f"{subject} role {name}") for name in ROLES}
    _check_separate(roles, subject)
    root = Root(
        envelope.version,
        envelope.expires,
        _time(signed, "x-appliance-issued", subject),
        _profile(signed, subject),
        roles,
        _revoked(signed, keys, subject),
    )
    return root, envelope


def parse_pointer(data: bytes, role: Role, kind: str, points_to: str, subject: str) -> Pointer:
    """Read and check a timestamp (which points to `snapshot.json`) or a snapshot (to `targets.json`).

    Raises:
        NotTrustedError: a rule is broken, or the role's threshold is not reached.
    """
    envelope = _open_envelope(data, kind, subject)
    check_signatures(envelope, role, subject)
    return Pointer(envelope.version, envelope.expires, _meta(envelope, points_to, subject))


def read_pointer(data: bytes, kind: str, points_to: str, subject: str) -> FileMeta:
    """Read what a timestamp or snapshot names, and count no signatures; raises as `parse_pointer`."""
    return _meta(_open_envelope(data, kind, subject), points_to, subject)


def parse_targets(data: bytes, role: Role, subject: str) -> tuple[Targets, tuple[PublicKey, ...]]:
    """Read and check a targets file.

    Returns:
        The targets, and the keys that signed.

    Raises:
        NotTrustedError: a rule is broken, the threshold is not reached, or it delegates.
    """
    envelope = _open_envelope(data, "targets", subject)
    signers = check_signatures(envelope, role, subject)
    if "delegations" in envelope.signed:  # TUF 5.6.7 then has nothing to search
        raise _refuse(subject, "flat targets", "delegations")
    entries = envelope.signed.get("targets")
    if not isinstance(entries, dict):
        raise _refuse(subject, "an object of targets", type(entries).__name__)
    parsed = {_target_name(name, subject): _entry(value, f"{subject} {name}") for name, value in entries.items()}
    issued = _time(envelope.signed, "x-appliance-issued", subject)
    return Targets(envelope.version, envelope.expires, issued, parsed), signers


@dataclass(frozen=True)
class Envelope:
    """The outside of a metadata file: what was signed, and the signatures by key id. Nothing in it is trusted yet."""

    signed: Mapping[str, Json]
    signatures: tuple[tuple[str, bytes], ...]
    version: int
    expires: str

    def message(self) -> bytes:
        """The bytes that the signatures are over."""
        return to_signing(self.signed)


class Rules(Protocol):
    """How the walk reads files: as this module, or in tests/conformance by TUF's rules without those that we add."""

    def parse_root(self, data: bytes, subject: str) -> tuple[Root, Envelope]: ...  # noqa: D102
    def parse_pointer(self, data: bytes, role: Role, kind: str, points_to: str, subject: str) -> Pointer: ...  # noqa: D102
    def parse_targets(self, data: bytes, role: Role, subject: str) -> tuple[Targets, tuple[PublicKey, ...]]: ...  # noqa: D102
    def check_signatures(  # noqa: D102
        self, envelope: Envelope, role: Role, subject: str, others: tuple[Role, ...] = ()
    ) -> tuple[PublicKey, ...]: ...


def check_signatures(
    envelope: Envelope, role: Role, subject: str, others: tuple[Role, ...] = ()
) -> tuple[PublicKey, ...]:
    """Count who signed, and refuse fewer than the threshold.

    Args:
        envelope: untrusted.
        role: whose threshold must be reached.
        subject: the file's name, for the error.
        others: further roles whose signatures may stand in the same file (a root signed by the old and the new keys).

    Returns:
        The distinct keys of `role` that signed, in file order.

    Raises:
        NotTrustedError: a signature is by a stranger, stands twice, does not verify, or there are too few.
    """
    message = envelope.message()
    signers: dict[bytes, PublicKey] = {}
    seen: set[str] = set()
    for key_id, signature in envelope.signatures:
        if key_id in seen:
            raise _refuse(subject, "one signature for each key", f"two by {key_id[:16]}")
        seen.add(key_id)
        key = next((known.keys[key_id] for known in (role, *others) if key_id in known.keys), None)
        if key is None:
            raise NotTrustedError(
                "signature.stranger",
                subject,
                expected="signatures by keys of the pinned trust root",
                found=f"one by the unknown key {key_id[:16]}",
                hint="this was signed by somebody else; compare `appliance trust show` on both sides",
            )
        key.verify(signature, message, subject)
        if key_id in role.keys:
            signers[key.spki] = key
    if len(signers) < role.threshold:
        raise NotTrustedError(
            "signature.threshold",
            subject,
            expected=f"{role.threshold} signatures by distinct keys",
            found=f"{len(signers)} of {role.threshold}",
            hint="ask the remaining key holders to sign",
        )
    return tuple(signers.values())


def _open_envelope(data: bytes, kind: str, subject: str) -> Envelope:
    value = load_canonical(data, subject, MAX_BYTES[kind])
    if not isinstance(value, dict) or set(value) != {"signatures", "signed"} or not isinstance(value["signed"], dict):
        raise _refuse(subject, "signatures and signed", "other fields")
    signed = value["signed"]
    if signed.get("_type") != kind:
        raise _refuse(subject, f"a file of type {kind}", repr(signed.get("_type"))[:60])
    if not re.match(r"1\.0\.[0-9]{1,4}\Z", str(signed.get("spec_version"))):
        raise _refuse(subject, "TUF specification 1.0", repr(signed.get("spec_version"))[:60])
    signatures = value["signatures"]
    if not isinstance(signatures, list) or len(signatures) > 64:
        raise _refuse(subject, "a list of at most 64 signatures", "something else")
    pairs = tuple(_signature(item, subject) for item in signatures)
    return Envelope(signed, pairs, _integer(signed, "version", subject, low=1), _time(signed, "expires", subject))


def _signature(item: Json, subject: str) -> tuple[str, bytes]:
    if not isinstance(item, dict) or set(item) != {"keyid", "sig"}:
        raise _refuse(subject, "signatures with keyid and sig", "other fields")
    signature = parse_signature(item["sig"], subject)
    return parse_digest(item["keyid"], subject), signature


def _key(key_id: str, value: Json, subject: str) -> PublicKey:
    key = key_from_json(value, subject)
    if key.key_id != key_id:
        raise _refuse(subject, f"key id {key.key_id}", f"{key_id[:80]}: a key id must be the digest of its key")
    return key


def _role(value: Json, keys: Mapping[str, PublicKey], subject: str) -> Role:
    if not isinstance(value, dict) or set(value) != {"keyids", "threshold"} or not isinstance(value["keyids"], list):
        raise _refuse(subject, "keyids and threshold", "other fields")
    ids = value["keyids"]
    if not all(isinstance(key_id, str) and key_id in keys for key_id in ids) or len(set(ids)) != len(ids):
        raise _refuse(subject, "distinct key ids that are in keys", "others")
    threshold = _integer(value, "threshold", subject, low=1)
    if len({keys[key_id].spki for key_id in ids}) < threshold:
        raise _refuse(subject, f"at least {threshold} distinct keys", str(len(ids)))
    return Role({key_id: keys[key_id] for key_id in ids}, threshold)


def _check_separate(roles: Mapping[str, Role], subject: str) -> None:
    # The builder's key signs snapshot and timestamp; were it also a root or targets key, it could choose content (T10).
    people = {*roles["root"].keys, *roles["targets"].keys}
    if people & {*roles["snapshot"].keys, *roles["timestamp"].keys}:
        raise _refuse(subject, "a builder's key that is in neither root nor targets", "one key in both")


def _meta(envelope: Envelope, name: str, subject: str) -> FileMeta:
    meta = envelope.signed.get("meta")
    if not isinstance(meta, dict) or set(meta) != {name} or not isinstance(meta[name], dict):
        raise _refuse(subject, f"meta with {name} alone", "others")
    value = meta[name]
    if set(value) != {"version", "length", "hashes"}:
        raise _refuse(subject, "version, length and hashes", "other fields")
    return FileMeta(
        _integer(value, "version", subject, low=1), _integer(value, "length", subject), _hashes(value, subject)
    )


def _target_name(name: str, subject: str) -> str:
    if not BUNDLE_TARGET.match(name) and not _OTHER_TARGET.match(name):
        expected = "bundles/<name>/<version>/manifest.json, or another path of A-Z a-z 0-9 . _ + @ = -"
        raise _refuse(subject, expected, f"the target {ascii(name)[:100]}")
    return name


def _entry(value: Json, subject: str) -> TargetEntry:
    if not isinstance(value, dict) or set(value) != {"length", "hashes", "custom"}:
        raise _refuse(subject, "length, hashes and custom", "other fields")
    custom = value["custom"]
    if not isinstance(custom, dict) or set(custom) != {"status", "statements"} or custom["status"] not in STATUSES:
        raise _refuse(subject, f"custom with statements and a status of {', '.join(STATUSES)}", "others")
    statements = custom["statements"]
    if not isinstance(statements, list) or not all(
        isinstance(one, str) and _STATEMENT.match(one) for one in statements
    ):
        raise _refuse(subject, "a list of statements, each of a-z 0-9 -", ascii(statements)[:60])
    if len(set(statements)) != len(statements):
        raise _refuse(subject, "each statement once", ascii(statements)[:60])
    length = _integer(value, "length", subject)
    if length > MAX_TARGET_BYTES:
        raise _refuse(subject, f"at most {MAX_TARGET_BYTES} bytes", str(length))
    return TargetEntry(length, _hashes(value, subject), custom["status"], tuple(statements))


def _hashes(value: Mapping[str, Json], subject: str) -> Digest:
    hashes = value["hashes"]
    if not isinstance(hashes, dict) or set(hashes) != {"sha256"}:
        raise _refuse(subject, "sha256 alone", "other hashes")
    return parse_digest(hashes["sha256"], subject)


def _integer(value: Mapping[str, Json], name: str, subject: str, low: int = 0) -> int:
    number = value.get(name)
    if type(number) is not int or not low <= number <= MAX_INT:
        raise _refuse(subject, f"{name} of at least {low}", repr(number)[:60])
    return number


def parse_time(text: Json, name: str, subject: str) -> str:
    """Read a time from untrusted metadata.

    Args:
        text: untrusted.
        name: of the field, for the error.
        subject: the file's name, for the error.

    Raises:
        NotTrustedError: not `YYYY-MM-DDThh:mm:ssZ`, or no such day or time exists.
    """
    try:
        if not isinstance(text, str) or not _TIME.match(text):
            raise ValueError
        datetime.fromisoformat(text[:-1])  # no 31st of February, no second 60: other clients refuse it, too
    except ValueError:
        raise _refuse(subject, f"{name} as YYYY-MM-DDThh:mm:ssZ", ascii(text)[:60]) from None
    return text


def _time(value: Mapping[str, Json], name: str, subject: str) -> str:
    return parse_time(value.get(name), name, subject)


def parse_signature(text: Json, subject: str) -> bytes:
    """Read a signature from untrusted metadata: lowercase hex of at most 80 bytes.

    Raises:
        NotTrustedError: something else.
    """
    if not isinstance(text, str) or not _HEX.match(text):
        raise _refuse(subject, "a signature in lowercase hex", ascii(text)[:60])
    return bytes.fromhex(text)


def _profile(signed: Mapping[str, Json], subject: str) -> str:
    profile = signed.get("x-appliance-profile", "")
    if profile not in ("", DEVELOPMENT):
        raise _refuse(subject, f"no profile, or {DEVELOPMENT}", repr(profile)[:60])
    return str(profile)


def _revoked(signed: Mapping[str, Json], keys: Mapping[str, PublicKey], subject: str) -> tuple[Digest, ...]:
    ids = signed.get(REVOKED_KEYS, [])
    if not isinstance(ids, list) or not all(isinstance(key_id, str) for key_id in ids) or ids != sorted(set(ids)):
        raise _refuse(subject, f"{REVOKED_KEYS}: distinct key ids in order", "others")
    if back := sorted(set(ids) & set(keys)):
        raise _refuse(subject, f"keys without those of {REVOKED_KEYS}", f"the revoked key {back[0][:64]}")
    return tuple(parse_digest(key_id, subject) for key_id in ids)


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("metadata.refused", subject, expected=expected, found=found)
