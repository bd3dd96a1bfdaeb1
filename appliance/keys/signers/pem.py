"""Private keys in PEM files, and signing with them.

Owns the only place that holds a private key in memory. Signatures are deterministic ECDSA P-256 (RFC 6979), so
signing the same bytes twice gives the same file.

Rules (threat T33):
- files are 0600 in a 0700 folder; nothing here prints or logs key material;
- a new key appears whole or not at all, and never in the place of another;
- a person's key is encrypted (PKCS #8, a passphrase of at least 12 characters); one that is not is a machine's own;
- the passphrase comes from the caller, who asked a person or read a descriptor: never from an option or a variable.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundles.medium import sync_folder
from signing.errors import NotTrustedError, UsageError
from signing.keys import PublicKey, key_from_spki

MIN_PASSPHRASE = 12
MAX_PASSPHRASE_BYTES = 1000
"""OpenSSL takes a few more."""
MAX_PEM_BYTES = 16 << 10
AskSecret = Callable[[str], str]
"""Gives a secret for what its argument names: the passphrase of a file, the PIN of a token."""


@dataclass(frozen=True, slots=True)
class PemKey:
    """A private key that is open in memory, and its public half."""

    private: ec.EllipticCurvePrivateKey
    public: PublicKey

    def sign(self, message: bytes) -> bytes:
        """Sign a message; the signature is DER."""
        return self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def create_key(path: Path, passphrase: str | None = None) -> PemKey:
    """Make a new key and write it.

    Args:
        path: must not exist; its folder gets mode 0700.
        passphrase: of a person; None for a machine's own key and for development roots.

    Raises:
        UsageError: a file lies there, or the passphrase is too short, too long, or no text.
    """
    if passphrase is not None and len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(
            "key.passphrase-short",
            str(path),
            expected=f"a passphrase of at least {MIN_PASSPHRASE} characters",
            found=f"{len(passphrase)} characters",
            hint="several words are easier to remember than odd letters",
        )
    secret = None if passphrase is None else _encode(passphrase, path)
    private = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.NoEncryption() if secret is None else serialization.BestAvailableEncryption(secret)
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        _write_private(partial, data)
        # Not a rename: a key that lies there is never replaced.
        os.link(partial, path)
    except FileExistsError:
        raise UsageError(
            "key.exists", str(path), expected="no file", found="one", hint="give the new key a name of its own"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return _with_public(private)


def load_key(path: Path, ask: AskSecret | None = None) -> PemKey:
    """Open a private key.

    Args:
        path: of the PEM file.
        ask: gives its passphrase; called only where the key is encrypted.

    Raises:
        UsageError: there is no P-256 private key at this path, others may read it, or the passphrase is wrong.
    """
    data = _read_private(path)
    secret: bytes | None = None
    if b"ENCRYPTED" in data:
        if ask is None:
            raise UsageError(
                "key.encrypted", str(path), expected="a key that needs no passphrase here", found="an encrypted one"
            )
        secret = _encode(ask(f"passphrase of {path}"), path)
    try:
        private = serialization.load_pem_private_key(data, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unreadable(path, is_encrypted=secret is not None) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UsageError("key.kind", str(path), expected="a P-256 key", found="another kind")
    return _with_public(private)


def load_public(path: Path) -> PublicKey:
    """Read the public half of a key that somebody handed over: a PEM file as `openssl pkey -pubout` writes it.

    Raises:
        UsageError: there is no P-256 public key at this path; a private key is refused, and said to be one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(
            "key.missing", str(path), expected="a public key", found="no file", hint="check the path"
        ) from None
    if b"PRIVATE KEY" in data:
        raise UsageError(
            "key.private",
            str(path),
            expected="the public half of a key",
            found="a private key",
            hint="its holder keeps this file; ask for the .pub file beside it, and whether this copy is safe",
        )
    try:
        loaded = serialization.load_pem_public_key(data)
        der = loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return key_from_spki(der, str(path))
    except (ValueError, UnsupportedAlgorithm, NotTrustedError):
        raise UsageError(
            "key.kind",
            str(path),
            expected="a P-256 public key in PEM",
            found="something else",
            hint="give the .pub file that `appliance key create` made",
        ) from None


def public_pem(key: PublicKey) -> bytes:
    """The public half as PEM, which `openssl` reads."""
    return serialization.load_der_public_key(key.spki).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _encode(passphrase: str, path: Path) -> bytes:
    # A terminal that sends what is no UTF-8 gives letters that stand for nothing.
    data = passphrase.encode("utf-8", "replace")
    if len(data) > MAX_PASSPHRASE_BYTES or data.decode() != passphrase:
        expected = f"a passphrase of letters, at most {MAX_PASSPHRASE_BYTES} bytes in UTF-8"
        raise UsageError("key.passphrase-odd", str(path), expected=expected, found=f"{len(data)} bytes")
    return data


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data, mode = file.read(MAX_PEM_BYTES), os.fstat(file.fileno()).st_mode
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(
            "key.missing",
            str(path),
            expected="a key file",
            found="no file",
            hint="check the path; a key of a workspace: check --workspace",
        ) from None
    if mode & 0o077 and b"PUBLIC KEY" not in data:
        raise UsageError(
            "key.exposed",
            str(path),
            expected="mode 0600",
            found=oct(mode & 0o777),
            hint=f"chmod 600 {path}, and ask who read it",
        )
    return data


def _unreadable(path: Path, *, is_encrypted: bool) -> UsageError:
    if is_encrypted:
        return UsageError(
            "key.passphrase", str(path), expected="its passphrase", found="another one", hint="type it once more"
        )
    return UsageError(
        "key.unreadable",
        str(path),
        expected="a PEM private key",
        found="something else",
        hint="give the file that `appliance key create` made, without the ending .pub",
    )


def _with_public(private: ec.EllipticCurvePrivateKey) -> PemKey:
    spki = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PemKey(private, key_from_spki(spki, "private key"))
