"""Private keys in PEM files, and signing with them.

Owns the only place that holds a private key in memory. Signatures are deterministic ECDSA P-256 (RFC 6979), so
signing the same bytes twice gives the same file.

Rules (threat T33): files are 0600 in a 0700 folder; nothing here prints or logs key material.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signing.errors import UsageError
from signing.keys import PublicKey, key_from_spki


@dataclass(frozen=True, slots=True)
class PemKey:
    """A private key that is open in memory, and its public half."""

    private: ec.EllipticCurvePrivateKey
    public: PublicKey

    def sign(self, message: bytes) -> bytes:
        """Sign a message; the signature is DER."""
        return self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def create_key(path: Path) -> PemKey:
    """Make a new key and write it, unencrypted: for development roots only.

    Args:
        path: must not exist; its folder gets mode 0700.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    data = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return _with_public(private)


def load_key(path: Path) -> PemKey:
    """Open a private key.

    Raises:
        UsageError: there is no P-256 private key at this path, or others may read it.
    """
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(
            "key.missing",
            str(path),
            expected="a private key",
            found="no file",
            hint="run `appliance init`, or name another workspace",
        ) from None
    if mode & 0o077:
        raise UsageError(
            "key.exposed",
            str(path),
            expected="mode 0600",
            found=oct(mode & 0o777),
            hint=f"chmod 600 {path}, and ask who read it",
        )
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(
            "key.unreadable", str(path), expected="an unencrypted PEM private key", found="something else"
        ) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UsageError("key.kind", str(path), expected="a P-256 key", found="another kind")
    return _with_public(private)


def _with_public(private: ec.EllipticCurvePrivateKey) -> PemKey:
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PemKey(private, key_from_spki(spki, "private key"))
