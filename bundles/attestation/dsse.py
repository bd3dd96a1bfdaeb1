"""DSSE envelopes: signatures over a payload and its type.

Owns the one pre-authentication encoding (PAE) and the counting of signatures. It never looks into a payload.

Rules (threats T11, T13):
- the caller states the payload type that it expects; another one is a refusal;
- a threshold counts distinct public keys; `keyid` is a hint without authority, but it may not name another key;
- every signature must be by one of the given keys and stand once: a stray one is a refusal, not noise;
- standard base64 in its one encoding; fields that DSSE does not name are refused.

Source: DSSE 1.0, protocol.md and envelope.md.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from signing.errors import NotTrustedError
from signing.keys import PublicKey
from signing.strictjson import Json

MAX_ENVELOPE_BYTES = 64 << 10
_MAX_SIGNATURES = 16


@dataclass(frozen=True)
class Dsse:
    """An envelope as it was read: a payload, its type, and signatures with their key hints. Not trusted yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that signatures are made over. Source: DSSE protocol.md, "Signature Definition"."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse_envelope(value: Json, payload_type: str, subject: str) -> Dsse:
    """Read an untrusted JSON value as an envelope of the payload type that the caller expects.

    Raises:
        NotTrustedError: another shape, or another payload type (code `envelope.payload-type`).
    """
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise _refuse(subject, "fields payload, payloadType, signatures", "others")
    if value["payloadType"] != payload_type:
        found = repr(value["payloadType"])[:80]
        raise NotTrustedError("envelope.payload-type", subject, expected=payload_type, found=found)
    items = value["signatures"]
    if not isinstance(items, list) or not 1 <= len(items) <= _MAX_SIGNATURES:
        raise _refuse(subject, f"1 to {_MAX_SIGNATURES} signatures", "something else")
    pairs = tuple(_signature(item, subject) for item in items)
    return Dsse(payload_type, _decode(value["payload"], subject), pairs)


def check_signers(envelope: Dsse, keys: Iterable[PublicKey], threshold: int, subject: str) -> tuple[PublicKey, ...]:
    """Count who signed an untrusted envelope.

    Args:
        envelope: its payload may be used once this returns.
        keys: those who may sign, each verified.
        threshold: how many distinct ones must, at least 1.
        subject: the file's name, for the error.

    Returns:
        The keys that signed, in file order.

    Raises:
        NotTrustedError: a signature is by none of the keys, stands twice, or there are too few.
    """
    message = pae(envelope.payload_type, envelope.payload)
    known = tuple(keys)
    signers: dict[bytes, PublicKey] = {}
    for hint, signature in envelope.signatures:
        key = _signer(hint, signature, message, known, subject)
        if key.spki in signers:
            raise _refuse(subject, "one signature for each key", f"two by {key.fingerprint[:16]}")
        signers[key.spki] = key
    if len(signers) < max(threshold, 1):
        expected = f"{threshold} signatures by distinct keys"
        raise NotTrustedError("signature.threshold", subject, expected=expected, found=str(len(signers)))
    return tuple(signers.values())


def _decode(text: Json, subject: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise _refuse(subject, "standard base64", repr(text)[:60])
    return data


def _signature(item: Json, subject: str) -> tuple[str, bytes]:
    if not isinstance(item, dict) or not {"sig"} <= set(item) <= {"sig", "keyid"}:
        raise _refuse(subject, "signatures with sig and keyid", "other fields")
    hint = item.get("keyid") or ""
    if not isinstance(hint, str):
        raise _refuse(subject, "a key id as text", repr(hint)[:60])
    return hint, _decode(item["sig"], subject)


def _signer(hint: str, signature: bytes, message: bytes, known: tuple[PublicKey, ...], subject: str) -> PublicKey:
    error = NotTrustedError(
        "signature.stranger",
        subject,
        expected="signatures by the expected keys",
        found=f"one by the unknown key {hint[:16]}" if hint else "one by another key",
        hint="this was signed by somebody else, or changed since; do not use it, ask a key holder",
    )
    for key in known:
        if hint in ("", key.key_id):
            try:
                key.verify(signature, message, subject)
                return key
            except NotTrustedError as invalid:
                error = invalid if hint else error
    raise error


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("envelope.refused", subject, expected=expected, found=found)
