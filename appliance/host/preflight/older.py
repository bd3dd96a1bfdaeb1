"""Whether an install would go back: a bundle that is older than the release that serves.

Owns the order of versions, and the rule. The newest metadata that a host knows have allowed the bundle before this is
asked: what they revoke is not trusted at all. A person must also state that going back is meant (`--older`).

Rules:
- versions are ordered by their numbers; `1.2.0-rc1` comes before `1.2.0`;
- the release that serves is never older than itself, so its own stick repairs it;
- bundles of different names are not ordered.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.preflight.finding import HostFinding, error_of, problem, warning
from appliance.host.release.release import current_target
from appliance.host.release.release_json import read_facts
from signing.errors import ApplianceError

OLDER = "install.older"
_Order = tuple[tuple[tuple[int, int, str], ...], bool, tuple[tuple[int, int, str], ...]]


def version_order(version: str) -> _Order:
    """Convert the version of a bundle to a value that orders it.

    Args:
        version: by the grammar of TRUST 2.
    """
    core, _, before = version.partition("-")
    return _parts(core), not before, _parts(before)


def _parts(text: str) -> tuple[tuple[int, int, str], ...]:
    # Numbers come after letters, as in `1.0.a` and `1.0.1`; trailing zeros count: 1.0 comes before 1.0.0.
    found = re.findall(r"[0-9]+|[a-z]+", text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in found)


def older_finding(prefix: Prefix, name: str, version: str, release: Path, *, is_meant: bool) -> HostFinding | None:
    """Compare a bundle with the release that serves.

    Args:
        prefix: the host.
        name, version: of the bundle, verified.
        release: the folder that it would have.
        is_meant: whether a person has stated that going back is meant.

    Returns:
        A problem, or a warning where it is meant; None where the install does not go back.
    """
    try:
        target = current_target(prefix)
    except ApplianceError:
        return None  # the install refuses what lies there
    if target is None or prefix.opt / target == release:
        return None
    serving_name, serving_version = _serving(prefix.opt / target, name)
    if serving_name != name or version_order(version) >= version_order(serving_version):
        return None
    required, measured = f"{name} {serving_version} or newer, which serves here", f"{name} {version}"
    if is_meant:
        return warning("release", required, measured, "going back was asked for with --older")
    remedy = "appliance rollback returns to a release that is here; or state that you mean it: install --older"
    return problem("release", required, measured, remedy, OLDER)


def _serving(folder: Path, name: str) -> tuple[str, str]:
    try:
        facts = read_facts(folder)
    except ApplianceError:
        # Damage must not open the way back: the folder's name has the version, and the product may be this one.
        return name, folder.name.rpartition("-")[0]
    return facts.name, facts.version


def check_older(prefix: Prefix, name: str, version: str, release: Path, *, is_meant: bool) -> None:
    """Refuse a bundle that is older than the release that serves, unless a person means it; see `older_finding`.

    Raises:
        HostUnfitError: code `install.older`; nothing was written.
    """
    found = older_finding(prefix, name, version, release, is_meant=is_meant)
    if found is not None and not is_meant:
        raise error_of(found)
