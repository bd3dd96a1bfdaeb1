"""Public keys and the one signature scheme that we accept: ECDSA P-256 with SHA-256.

Owns `PublicKey`: how a key is read, named, fingerprinted, and how one signature is checked. It holds no private key.

Rules (threats T11, T13, T30):
- the key states its type and scheme, and both must be ours; another value is refused, never guessed;
- the PEM text must be the one encoding of a P-256 SubjectPublicKeyInfo, so one key has one key id;
- the key id is the sha256 of the key's canonical JSON, and is computed, never taken from the file;
- signatures are strict DER: what does not re-encode to the same bytes is refused;
- `cryptography` checks signatures where it is there; `signing.p256` does on a bare host, with the same outcome.

Source: TUF specification 1.0.34, section 4.2 (keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Callable

from signing import p256
from signing.digest import Digest, sha256
from signing.errors import NotTrustedError
from signing.strictjson import Json, to_signing

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
except ImportError:
    check_signature = p256.check_signature
else:

    class _EcdsaSha256(ec.ECDSA):
        """The algorithm without the constructor of its base, which loads every cipher of the library."""

        algorithm = _algorithm = hashes.SHA256()  # releases before 35 read the second name

        def __init__(self) -> None:
            pass

    def check_signature(spki: bytes, signature: bytes, message: bytes) -> None:
        """Check one signature as `signing.p256.check_signature` does, only faster."""
        if len(signature) > _MAX_SIGNATURE_BYTES or encode_dss_signature(*decode_dss_signature(signature)) != signature:
            raise ValueError("not strict DER")
        # The one encoding ends with the point; what reads every kind of DER takes longer to load than all checks.
        p256.check_key(spki)
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[-65:])
        try:
            key.verify(signature, message, _EcdsaSha256())
        except InvalidSignature:
            raise ValueError("this key did not sign this message") from None


KEY_TYPE = "ecdsa"
SCHEME = "ecdsa-sha2-nistp256"
_MAX_SIGNATURE_BYTES = 72


@dataclass(frozen=True)
class PublicKey:
    """A parsed P-256 public key.

    Args:
        key_id: sha256 of the canonical JSON of the key, as TUF names it.
        fingerprint: sha256 of the DER SubjectPublicKeyInfo: the only name of a key that people are shown.
        spki: the DER SubjectPublicKeyInfo; thresholds count distinct values of it.
    """

    key_id: Digest
    fingerprint: Digest
    spki: bytes

    def verify(self, signature: bytes, message: bytes, subject: str) -> None:
        """Check one signature over a message.

        Args:
            signature: untrusted, DER.
            message: the bytes that were signed, in full.
            subject: what was signed, for the error.

        Raises:
            NotTrustedError: not strict DER, or not made by this key over this message.
        """
        try:
            check_signature(self.spki, signature, message)
        except ValueError:
            raise NotTrustedError(
                "signature.invalid",
                subject,
                expected=f"a signature by key {self.fingerprint[:16]}",
                found="one that this key did not make over these bytes",
                hint="do not use these files; ask a key holder",
            ) from None


Schemes = Mapping[tuple[str, str], Callable[[Json, str], PublicKey]]
"""Readers of keys of further types and schemes; the client in tests/conformance brings some."""
OURS: Schemes = {}  # the only value in the product


def key_from_spki(spki: bytes, subject: str) -> PublicKey:
    """Make a `PublicKey` from DER.

    Raises:
        NotTrustedError: not a P-256 key, or not its one encoding.
    """
    return _load(spki, subject)


def key_from_json(value: Json, subject: str, schemes: Schemes = OURS) -> PublicKey:
    """Make a `PublicKey` from the key object of TUF root metadata.

    Args:
        value: untrusted; `{"keytype", "scheme", "keyval": {"public": PEM}}`.
        subject: where it stands, for the error.
        schemes: further ones that are accepted.

    Raises:
        NotTrustedError: another type, scheme or field, or not a valid P-256 key in its one encoding.
    """
    if not isinstance(value, dict) or set(value) != {"keytype", "scheme", "keyval"}:
        raise _refuse(subject, "fields keytype, scheme, keyval", "others")
    other = schemes.get((str(value["keytype"]), str(value["scheme"])))
    if other is not None:
        return other(value, subject)
    if value["keytype"] != KEY_TYPE or value["scheme"] != SCHEME:
        raise _refuse(subject, f"{KEY_TYPE} / {SCHEME}", f"{value['keytype']!r} / {value['scheme']!r}"[:120])
    keyval = value["keyval"]
    if not isinstance(keyval, dict) or set(keyval) != {"public"} or not isinstance(keyval["public"], str):
        raise _refuse(subject, "keyval with the field public", "others")
    try:
        spki = p256.spki_of(keyval["public"])
    except ValueError:
        raise _refuse(subject, "a public key in its one PEM form", "another form") from None
    return _load(spki, subject)


def key_to_json(key: PublicKey) -> Json:
    """The TUF key object of a key."""
    return _key_json(key.spki)


def _load(spki: bytes, subject: str) -> PublicKey:
    try:
        return _read(spki)
    except ValueError:
        raise _refuse(subject, "a P-256 public key in its one encoding", "something else") from None


@lru_cache(64)  # every root of a chain names much the same keys
def _read(spki: bytes) -> PublicKey:
    p256.check_key(spki)
    return PublicKey(sha256(to_signing(_key_json(spki))), sha256(spki), spki)


def _key_json(spki: bytes) -> Json:
    return {"keytype": KEY_TYPE, "scheme": SCHEME, "keyval": {"public": p256.pem_of(spki)}}


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("key.refused", subject, expected=expected, found=found)
