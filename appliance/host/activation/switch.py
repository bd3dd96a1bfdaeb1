"""The switch from one release to the next: one rename, after everything else is durable (threat T35).

Owns the writing of `RELEASE.json`, `RELEASE.ok` and the link `current`. The link never names a release without
`RELEASE.ok`. The release before is not changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.host.layout.atomic_file import write_file
from appliance.host.layout.places import FACTS_FILE, OK_FILE
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import current_target
from appliance.host.release.release_json import Facts, write_facts
from bundles.durability import sync_file_system
from bundles.medium import sync_folder


def complete(release: Path, facts: Facts) -> bool:
    """Mark a release as complete, durably: write its facts, and last `RELEASE.ok`.

    Args:
        release: its folder, in which everything else is complete.
        facts: of the release.

    Returns:
        False where both files were there already, with these bytes.
    """
    sync_file_system(release)
    wrote = write_file(release / FACTS_FILE, write_facts(facts))
    return write_file(release / OK_FILE, b"") or wrote


def target_of(prefix: Prefix, release: Path) -> str:
    """The target of the link `current` for a release: its path, relative to the link."""
    return str(release.relative_to(prefix.opt))


def point_at(prefix: Prefix, target: str | None) -> bool:
    """Make the link `current` name a release, or remove it, durably.

    Args:
        prefix: the host.
        target: from `target_of` or `current_target`; None removes the link.

    Returns:
        False where the link was so already.
    """
    if current_target(prefix) == target:
        return False
    if target is None:
        prefix.current.unlink()
    else:
        partial = prefix.opt / ".current.partial"
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        os.rename(partial, prefix.current)
    sync_folder(prefix.opt)
    return True
