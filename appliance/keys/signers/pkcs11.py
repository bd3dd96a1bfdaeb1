"""Signing with a key on a token: a smart card, a USB key, an HSM, through the vendor's PKCS#11 library.

Owns how such a key is named and used. The key never leaves the token; this machine sends a SHA-256 and gets r and s.

A key is named by a PKCS#11 URI (RFC 7512) with `token`, `object` and `module-path`:
`pkcs11:token=alice;object=signing?module-path=/usr/lib/softhsm/libsofthsm2.so`

Rules: the PIN comes from the caller, who asked a person; a URI that holds one (`pin-value`) is refused. Tokens need not
sign deterministically.

Source: PKCS #11 v2.40, mechanism CKM_ECDSA (over a digest made here, which every token with P-256 knows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from appliance.keys.signers.pem import AskSecret
from signing.errors import ApplianceError, NotTrustedError, UsageError
from signing.keys import PublicKey, key_from_spki

if TYPE_CHECKING:
    import pkcs11

SCHEME = "pkcs11:"
_P256_POINT_BYTES = 65
_SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


@dataclass(frozen=True, slots=True)
class TokenName:
    """Which key on which token: the vendor's library, the token's label, the key's label."""

    module: str
    token: str
    key: str


@dataclass(frozen=True, slots=True)
class TokenSigner:
    """A key on a token that answered.

    Args:
        name: where it is.
        public: read from the token.
        pin: kept for as long as this process signs.
    """

    name: TokenName
    public: PublicKey
    pin: str

    def sign(self, message: bytes) -> bytes:
        """Let the token sign a message.

        Raises:
            UsageError, ApplianceError: as `open_token`.
        """
        import pkcs11
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        with _session(self.name, self.pin) as session:
            private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=self.name.key)
            sign: Any = private.sign  # type: ignore[attr-defined]  # which mixins a key has depends on the token
            raw: bytes = sign(hashlib.sha256(message).digest(), mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def parse_uri(uri: str) -> TokenName:
    """Read the URI of a key.

    Raises:
        UsageError: a part is missing or unknown, or it holds a PIN.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    parts: dict[str, str] = {}
    for pair in [*path.split(";"), *(query.split("&") if query else ())]:
        name, _, value = pair.partition("=")
        parts[name] = unquote(value)
    if "pin-value" in parts:
        raise UsageError(
            "token.pin-in-name",
            "--key",
            expected="a name without a PIN: command lines are seen by others",
            found="pin-value",
            hint="leave it out; the PIN is asked for, or read from --passphrase-fd",
        )
    if set(parts) != {"token", "object", "module-path"} or not all(parts.values()):
        raise UsageError(
            "token.name",
            uri,
            expected="pkcs11:token=LABEL;object=LABEL?module-path=LIBRARY",
            found=", ".join(sorted(parts)) or "nothing",
            hint="pkcs11-tool --module LIBRARY --list-objects shows the labels",
        )
    return TokenName(parts["module-path"], parts["token"], parts["object"])


def open_token(uri: str, ask: AskSecret) -> TokenSigner:
    """Find a key on a token.

    Args:
        uri: names it.
        ask: gives the token's PIN.

    Raises:
        UsageError: the name is wrong, the library is not here, or this installation has no PKCS#11 support.
        ApplianceError: the token is not plugged in, refuses the PIN, or has no such P-256 key.
    """
    name = parse_uri(uri)
    _library(name)
    pin = ask(f"PIN of token {name.token}")
    with _session(name, pin) as session:
        return TokenSigner(name, _read_public(session, name), pin)


def _read_public(session: pkcs11.Session, name: TokenName) -> PublicKey:
    import pkcs11

    key = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=name.key)
    point = key[pkcs11.Attribute.EC_POINT]
    # The attribute is the point in a DER octet string; some tokens give the point alone.
    bare = point[-_P256_POINT_BYTES:]
    try:
        if len(bare) != _P256_POINT_BYTES or len(point) > _P256_POINT_BYTES + 3:
            raise NotTrustedError("key.refused", name.key)
        return key_from_spki(_SPKI_HEAD + bare, name.key)
    except NotTrustedError:
        raise ApplianceError(
            "token.key-kind", name.key, expected="a P-256 key", found="a key of another kind"
        ) from None


def _library(name: TokenName) -> Any:
    try:
        import pkcs11
    except ImportError:
        raise UsageError(
            "token.no-support",
            name.token,
            expected="the Python package python-pkcs11",
            found="none",
            hint="pip install 'airgap-appliance[token]'",
        ) from None
    try:
        return pkcs11.lib(name.module)
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise UsageError(
            "token.no-library",
            name.module,
            expected="the PKCS#11 library of the token's vendor",
            found=str(error)[:200] or type(error).__name__,
            hint="check module-path in --key",
        ) from None


@contextmanager
def _session(name: TokenName, pin: str) -> Iterator[pkcs11.Session]:
    import pkcs11

    try:
        with _library(name).get_token(token_label=name.token).open(user_pin=pin) as session:
            yield session
    except pkcs11.PKCS11Error as error:
        _explain(error, name)


def _explain(error: Exception, name: TokenName) -> NoReturn:
    import pkcs11

    by_error: dict[type[Exception], tuple[str, str, str, str]] = {
        pkcs11.NoSuchToken: ("token.absent", "a token with this label", "none", "plug it in, then try again"),
        pkcs11.NoSuchKey: ("token.no-key", f"a key with the label {name.key}", "none", "check object= in --key"),
        pkcs11.PinIncorrect: ("token.pin", "the token's PIN", "another one", "after a few wrong PINs a token locks"),
        pkcs11.PinLocked: ("token.locked", "an unlocked token", "a locked one", "unlock it with its vendor's program"),
    }
    usual = ("token.failed", "a signature", str(error) or type(error).__name__, "check the token, then try again")
    code, expected, found, hint = by_error.get(type(error), usual)
    raise ApplianceError(code, f"token {name.token}", expected=expected, found=found, hint=hint) from None
