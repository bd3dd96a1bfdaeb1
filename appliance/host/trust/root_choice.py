"""Which trust root a verification starts from (docs/architecture.md, Trust).

Owns the order of the choice: a file that the person names, else the root that the host has pinned, else the root of a
workspace that the person names.

Rules (threat T40):
- the root never comes from what is being verified;
- where no root is found, the command ends with exit code 4 and names the command that pins one.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.trust.trust_store import read_root, read_root_file
from signing.errors import NotTrustedError, UsageError


def choose_root(trust: Path | None, prefix: Prefix | None, workspace: Path | None) -> bytes:
    """Read the bytes of the root file to verify against.

    Args:
        trust: the file of `--trust`, or None.
        prefix: the host's tree, or None where the command concerns no host.
        workspace: the publisher's workspace, or None.

    Raises:
        UsageError: the named file does not exist.
        NotTrustedError: nothing is pinned (code `trust.none-pinned`).
    """
    if trust is not None:
        try:
            return read_root_file(trust)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UsageError(
                "trust.no-file", str(trust), expected="a root file", found="no file", hint="check the path in --trust"
            ) from None
    if prefix is not None:
        pinned = read_root(prefix)
        if pinned is not None:
            return pinned
    if workspace is not None:
        try:
            return read_root_file(workspace / "trust" / "root.json")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UsageError(
                "workspace.missing",
                str(workspace),
                expected="a workspace with trust/root.json",
                found="none",
                hint="check --workspace, or APPLIANCE_WORKSPACE",
            ) from None
    raise none_pinned(prefix)


def none_pinned(prefix: Prefix | None) -> NotTrustedError:
    """The error for a host without a pinned root, with the command that pins one."""
    place = "" if prefix is None else prefix.option
    return NotTrustedError(
        "trust.none-pinned",
        str(prefix.root if prefix else "no host"),
        expected="a trust root that a person has pinned",
        found="none pinned here",
        hint=(
            "where a publisher's workspace is, add --workspace DIR; on a host, compare the fingerprint with the paper, "
            f"then: appliance trust pin ROOT --fingerprint SHA256{place}"
        ),
    )
