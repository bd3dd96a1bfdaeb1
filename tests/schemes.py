"""Verifiers of signature schemes that the product does not accept: for other people's vectors and repositories only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from signing.digest import sha256
from signing.errors import NotTrustedError
from signing.keys import PublicKey, Schemes, key_from_json
from signing.strictjson import Json, to_signing


class ForeignKey(PublicKey):
    """A key of another kind, whose signatures `check` accepts by returning."""

    check: Callable[[bytes, bytes], object]

    def verify(self, signature: bytes, message: bytes, subject: str) -> None:
        try:
            self.check(signature, message)
        except InvalidSignature:
            raise NotTrustedError("signature.invalid", subject, expected="a signature by this key") from None


def _foreign(key: Any, key_json: Json, check: Callable[[bytes, bytes], object]) -> ForeignKey:
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    made = ForeignKey(sha256(to_signing(key_json)), sha256(spki), spki)
    object.__setattr__(made, "check", check)
    return made


class P384Key:
    """ECDSA P-384 with SHA-384."""

    @staticmethod
    def from_pem(pem: bytes) -> ForeignKey:
        key = serialization.load_pem_public_key(pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
        return _foreign(key, {}, lambda signature, message: key.verify(signature, message, ec.ECDSA(hashes.SHA384())))


def _ed25519(value: Json, subject: str) -> ForeignKey:
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["keyval"]["public"]))
    except ValueError:
        raise NotTrustedError("key.refused", subject, expected="an Ed25519 key", found="something else") from None
    return _foreign(key, value, key.verify)


def _rsa(fill: padding.AsymmetricPadding) -> Callable[[Json, str], ForeignKey]:
    def read(value: Json, subject: str) -> ForeignKey:
        try:
            key = serialization.load_pem_public_key(value["keyval"]["public"].encode())
        except ValueError:
            raise NotTrustedError("key.refused", subject, expected="an RSA key", found="something else") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise NotTrustedError("key.refused", subject, expected="an RSA key", found="another kind")
        return _foreign(key, value, lambda signature, message: key.verify(signature, message, fill, hashes.SHA256()))

    return read


def _old_name(value: Json, subject: str) -> PublicKey:
    # The key type was once spelled like the scheme. Its id is not ours to judge.
    return key_from_json({**value, "keytype": "ecdsa"}, subject)


FOREIGN: Schemes = {
    ("ed25519", "ed25519"): _ed25519,
    ("rsa", "rsassa-pss-sha256"): _rsa(padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)),
    ("rsa", "rsa-pkcs1v15-sha256"): _rsa(padding.PKCS1v15()),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"): _old_name,
}
"""What other TUF repositories sign with."""
