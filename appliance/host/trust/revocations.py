"""The mark of an installed release that the newest metadata do not allow: the file `REVOKED` in its folder.

Owns the mark. `appliance rollback` is a shell script, which cannot read TUF metadata; it refuses marked releases.

Rules (threat T122):
- the mark is written before the metadata that say so are stored, so no moment is without it;
- an allow-list decides: what the newest targets file lists as current or allowed has no mark, all else gets one;
- nothing removes it but the removal of the release: a revocation is never taken back;
- it only refuses. What serves is judged by the metadata themselves.
"""

from __future__ import annotations

from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import OK_FILE, REVOKED_FILE
from appliance.host.layout.prefix import Prefix
from bundles.oci.layout import target_name
from signing.digest import parse_digest
from signing.errors import NotTrustedError
from signing.strictjson import load
from signing.verified import Evidence

_TEXT = b"The newest signed metadata of this host do not allow this release.\n"
_REVOKED = "revoked"


def mark_revoked(prefix: Prefix, evidence: Evidence) -> tuple[str, ...]:
    """Mark every installed release that verified metadata do not allow; called before they are stored.

    Args:
        prefix: the host.
        evidence: of a bundle, verified by the newest metadata of a medium and of this host.

    Returns:
        The folder names of the releases that it has marked, and that were not marked before.
    """
    allowed = allowed_releases(prefix, evidence)
    installed = sorted(path.parent for path in prefix.releases.glob(f"*/{OK_FILE}"))
    return tuple(path.name for path in installed if path not in allowed and write_file(path / REVOKED_FILE, _TEXT))


def allowed_releases(prefix: Prefix, evidence: Evidence) -> frozenset[Path]:
    """The folders of all bundles that verified metadata list as current or allowed."""
    name, data = max(
        ((name, data) for name, data in evidence.metadata.items() if name.endswith(".targets.json")),
        key=lambda item: int(item[0].split(".")[0]),
    )
    # The bytes are verified: only their form is relied on here.
    targets = load(data, name, len(data))["signed"]["targets"]
    return frozenset(
        prefix.release_path(version, parse_digest(entry["hashes"]["sha256"], target))
        for target, entry in targets.items()
        if entry["custom"]["status"] != _REVOKED and (version := _version(target))
    )


def check_mark(release: Path) -> None:
    """Refuse a release that holds the mark, although the metadata here allow it.

    Args:
        release: its folder; its chain of trust holds.

    Raises:
        NotTrustedError: code `release.marked`; somebody has set the metadata back.
    """
    if (release / REVOKED_FILE).exists() or (release / REVOKED_FILE).is_symlink():
        raise NotTrustedError(
            "release.marked",
            f"{release.name}/{REVOKED_FILE}",
            expected="no such file in a release that the metadata allow",
            found="the mark of a release that newer metadata do not allow",
            hint="somebody has set back the metadata of this host; install the newest release from its stick",
        )


def _version(target: str) -> str:
    """The version in the name of a bundle's target; empty for another target."""
    parts = target.split("/")
    return parts[2] if len(parts) == 4 and target == target_name(parts[1], parts[2]) else ""
