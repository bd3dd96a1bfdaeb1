"""Reading from nftables: the counters and the rules of one table.

Owns the command lines. It changes nothing in the kernel: `appliance-egress.service` loads the rules.

Rules:
- nothing of the caller's environment is passed on;
- what cannot be read is None, never 0.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

NFT = Path("/usr/sbin/nft")
TIMEOUT_S = 20.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def is_there() -> bool:
    """Whether this machine has the program `nft`."""
    return os.access(NFT, os.X_OK)


def read_counters(table: str) -> dict[str, int] | None:
    """Read the packets of each named counter of a table.

    Args:
        table: of family `inet`.

    Returns:
        Packets by the counter's name; None where the table is not there, or this user may not read it.
    """
    shown = _call("--json", "list", "counters", "table", "inet", table)
    try:
        entries = [entry["counter"] for entry in json.loads(shown)["nftables"] if "counter" in entry]
        return {str(entry["name"]): int(entry["packets"]) for entry in entries} or None
    except (ValueError, KeyError, TypeError):
        return None


def read_rules(table: str) -> str:
    """Read the rules of a table as text without their numbers; empty where the table is not there."""
    return _call("--stateless", "list", "table", "inet", table)


def _call(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [NFT, *arguments],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
