"""Public keys and the one signature scheme that we accept: ECDSA P-256 with SHA-256.

Owns `PublicKey`: how a key is read, named, fingerprinted, and how one signature is checked. It holds no private key.

Rules (threats T11, T13, T30):
- the key says its type and scheme, and both must be ours; another value is refused, never guessed;
- the PEM text must be the one spelling of a P-256 SubjectPublicKeyInfo, so one key has one key id;
- the key id is the sha256 of the key's canonical JSON, and is computed, never believed;
- signatures are strict DER: what does not re-encode to the same bytes is refused.

Source: TUF specification 1.0.34, section 4.2 (keys); SEC 1 for the point check, done by `cryptography`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from signing.digest import Digest, sha256
from signing.errors import NotTrustedError
from signing.strictjson import Json, to_signing

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
            if (
                len(signature) > _MAX_SIGNATURE_BYTES
                or encode_dss_signature(*decode_dss_signature(signature)) != signature
            ):
                raise ValueError("not strict DER")
            key = serialization.load_der_public_key(self.spki)
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature):
            raise NotTrustedError(
                "signature.invalid",
                subject,
                expected=f"a signature by key {self.fingerprint[:16]}",
                found="one that this key did not make over these bytes",
                hint="do not use these files; ask a key holder",
            ) from None


def key_from_spki(spki: bytes, subject: str) -> PublicKey:
    """Make a `PublicKey` from DER.

    Raises:
        NotTrustedError: not a P-256 key, or not its one spelling.
    """
    return _load(serialization.load_der_public_key, spki, subject)


def key_from_json(value: Json, subject: str) -> PublicKey:
    """Make a `PublicKey` from the key object of TUF root metadata.

    Args:
        value: untrusted; `{"keytype", "scheme", "keyval": {"public": PEM}}`.
        subject: where it stands, for the error.

    Raises:
        NotTrustedError: another type, scheme or field, or not a valid P-256 key in its one spelling.
    """
    if not isinstance(value, dict) or set(value) != {"keytype", "scheme", "keyval"}:
        raise _refuse(subject, "fields keytype, scheme, keyval", "others")
    if value["keytype"] != KEY_TYPE or value["scheme"] != SCHEME:
        raise _refuse(subject, f"{KEY_TYPE} / {SCHEME}", f"{value['keytype']!r} / {value['scheme']!r}"[:120])
    keyval = value["keyval"]
    if not isinstance(keyval, dict) or set(keyval) != {"public"} or not isinstance(keyval["public"], str):
        raise _refuse(subject, "keyval with the field public", "others")
    key = _load(serialization.load_pem_public_key, keyval["public"].encode(), subject)
    if key_to_json(key) != value:
        raise _refuse(subject, "the one PEM spelling of the key", "another spelling")
    return key


def key_to_json(key: PublicKey) -> Json:
    """The TUF key object of a key."""
    return _key_json(key.spki)


def _load(load: object, data: bytes, subject: str) -> PublicKey:
    try:
        loaded = load(data)  # type: ignore[operator]
    except (ValueError, UnsupportedAlgorithm):
        raise _refuse(subject, "a P-256 public key", "something else") from None
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise _refuse(subject, "a P-256 public key", "a key of another kind")
    spki = loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(sha256(to_signing(_key_json(spki))), sha256(spki), spki)


def _key_json(spki: bytes) -> Json:
    pem = serialization.load_der_public_key(spki).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"keytype": KEY_TYPE, "scheme": SCHEME, "keyval": {"public": pem.decode("ascii")}}


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("key.refused", subject, expected=expected, found=found)
