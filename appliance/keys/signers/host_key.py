"""The key of a host: it signs this host's own statements, evidence and receipts.

Owns its creation and its two files. It is made by the first installation, and never leaves the host (threat T33).
No command prints it, copies it or puts it into a bundle. It makes no bundle trusted.

Rules:
- `host.pem` is 0600 and its owner's alone; `host.pub` beside it is for everybody;
- a key that is there stays: receipts and evidence of years refer to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.keys.signers.pem import PemKey, create_key, load_key, load_public, public_pem
from signing.keys import PublicKey

PRIVATE, PUBLIC = "host.pem", "host.pub"


def make_host_key(folder: Path) -> PublicKey:
    """Make the key of this host where there is none.

    Args:
        folder: exists; only the host's administrator may write there.

    Returns:
        Its public half.

    Raises:
        UsageError: what lies there is no key, or others may read it.
    """
    path = folder / PRIVATE
    if not path.exists():
        create_key(path)
    public = load_key(path).public
    half = folder / PUBLIC
    if not half.exists() or half.read_bytes() != public_pem(public):
        half.write_bytes(public_pem(public))
        half.chmod(0o644)
    return public


def host_public(folder: Path) -> PublicKey | None:
    """The public half of the host's key, or None where the host has none."""
    path = folder / PUBLIC
    return load_public(path) if path.exists() else None


def host_key(folder: Path) -> PemKey | None:
    """The host's key, or None where the host has none. Only its administrator can read it."""
    path = folder / PRIVATE
    return load_key(path) if os.path.lexists(path) else None
