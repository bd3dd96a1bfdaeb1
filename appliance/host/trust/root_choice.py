"""Whose root? The choice of the trust root that something is checked against (DESIGN 6).

Owns the order of the choice and nothing else: a file that the person names, else the root that the host has pinned,
else the root of a
workspace that the person names.

Rules (threat T40): never a root that was found in what is being verified; where none is pinned, exit 4 and the
command that pins one.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.tree.prefix import Prefix
from appliance.host.trust.floor_store import read_root, read_root_file
from signing.errors import NotTrustedError, UsageError


def choose_root(trust: Path | None, prefix: Prefix | None, workspace: Path | None) -> bytes:
    """The bytes of the root file to check against.

    Args:
        trust: `--trust FILE`, or None.
        prefix: the host's tree, or None where no host is meant.
        workspace: the publisher's workspace, or None.

    Raises:
        UsageError: the named file does not exist.
        NotTrustedError: nothing is pinned (code `trust.none-pinned`).
    """
    if trust is not None:
        try:
            return read_root_file(trust)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UsageError("trust.no-file", str(trust), expected="a root file", found="no file") from None
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
    """The error where nobody has decided whom to trust, with the command that decides it for this host."""
    place = "" if prefix is None else prefix.option
    return NotTrustedError(
        "trust.none-pinned",
        str(prefix.root if prefix else "no host"),
        expected="a trust root that somebody decided to trust",
        found="none pinned here",
        hint=(
            "where a publisher's workspace is, add --workspace DIR; on a host, compare the fingerprint with the paper, "
            f"then: appliance trust pin ROOT --fingerprint SHA256{place}"
        ),
    )
