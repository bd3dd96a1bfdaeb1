"""A signer: a key in a file, on a token, or behind a program of the site's own.

Owns the interface, and the rule that the public key must accept a signature before it is used. So a token with a fault,
or a program that signs something else, is found on the machine where it is.
"""

from __future__ import annotations

from typing import Protocol

from signing.errors import ApplianceError, NotTrustedError
from signing.keys import PublicKey


class Signer(Protocol):
    """A private key that somebody else may hold, and its public half."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Sign a message with ECDSA P-256 and SHA-256; the signature is DER."""
        ...


def sign_checked(signer: Signer, message: bytes, subject: str) -> bytes:
    """Sign a message, and check the signature with the public key.

    Args:
        signer: of any kind.
        message: in full; the signer hashes it.
        subject: what is signed, for the error.

    Raises:
        ApplianceError: what came back is no signature by this key over this message (code `signer.wrong-signature`).
    """
    signature = signer.sign(message)
    try:
        signer.public.verify(signature, message, subject)
    except NotTrustedError:
        raise ApplianceError(
            "signer.wrong-signature",
            subject,
            expected=f"a signature by key {signer.public.fingerprint}",
            found=f"{len(signature)} bytes that this key does not accept",
            hint="check which key the token or program uses; nothing was signed",
        ) from None
    return signature
