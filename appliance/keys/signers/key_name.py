"""The name of a signing key: the value of `--key`.

Owns its three forms:

    alice.pem                                                   a file; its passphrase is asked for
    pkcs11:token=alice;object=signing?module-path=LIBRARY       a key on a token; its PIN is asked for
    exec:PROGRAM#KEYID                                          a program of the site's own
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.keys.signers import pkcs11
from appliance.keys.signers.external_signer import ExternalSigner
from appliance.keys.signers.pem import AskSecret, load_key
from appliance.keys.signers.signer import Signer
from signing.errors import UsageError
from signing.keys import PublicKey

EXEC = "exec:"
_MIN_PREFIX = 8


def open_signer(name: str, ask: AskSecret, known: Sequence[PublicKey], public: PublicKey | None = None) -> Signer:
    """Open the key that a person named.

    Args:
        name: the value of `--key`.
        ask: gives a passphrase or PIN.
        known: keys that may be meant, for a program whose KEYID is the fingerprint of one of them.
        public: the public half of a program's key, where the person gave it.

    Raises:
        UsageError: there is no such key, or nobody knows the public half of a program's key.
        ApplianceError: the token refused.
    """
    if name.startswith(pkcs11.SCHEME):
        return pkcs11.open_token(name, ask)
    if name.startswith(EXEC):
        program, _, key_id = name.removeprefix(EXEC).partition("#")
        return ExternalSigner(program, key_id, public or _by_fingerprint(key_id, known))
    return load_key(Path(name), ask)


def _by_fingerprint(key_id: str, known: Sequence[PublicKey]) -> PublicKey:
    found = [key for key in known if len(key_id) >= _MIN_PREFIX and key.fingerprint.startswith(key_id.lower())]
    if len(found) != 1:
        raise UsageError(
            "key.public-unknown",
            "--key",
            expected="exec:PROGRAM#KEYID, where KEYID is the start of the fingerprint of one key that is asked",
            found=key_id or "no KEYID",
            hint="or give the public half: --public FILE",
        )
    return found[0]
