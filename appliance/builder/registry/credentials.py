"""The login for a registry: from a file, never from the command line or the environment.

Owns the reading of that file, which other tools write with `login`. It must never store or show a part of it.

Rules:
- a file that other users may read is refused;
- only the entry of exactly this host is used.

Source: containers-auth.json(5).
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from signing.errors import NotTrustedError, UsageError
from signing.strictjson import load

MAX_BYTES = 1 << 20


def read_credentials(path: Path, host: str) -> tuple[str, str]:
    """User and password for a registry.

    Args:
        path: of a file like `${XDG_RUNTIME_DIR}/containers/auth.json`.
        host: with its port, as the reference names it.

    Raises:
        UsageError: no such file, others may read it, or it has no entry for the host.
    """
    try:
        with path.open("rb") as stream:
            mode, data = os.fstat(stream.fileno()).st_mode, stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(path, "a file that can be read", (error.strerror or "").lower()) from None
    if mode & 0o077:
        raise _wrong(path, "a file that only its owner may read", f"mode {mode & 0o777:o}", f"chmod 600 {path}")
    try:
        value = load(data, str(path), MAX_BYTES)
        encoded = value["auths"][host]["auth"]
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (NotTrustedError, KeyError, TypeError, ValueError):
        colon = ""
    if not colon:
        hint = f"skopeo login --authfile {path} {host}"
        raise _wrong(path, f'an entry in "auths" for {host} with "auth"', "none", hint)
    return user, password


def _wrong(path: Path, expected: str, found: str, hint: str = "") -> UsageError:
    return UsageError("registry.credentials", str(path), expected=expected, found=found, hint=hint)
