"""No service starts because its package is installed: `/usr/sbin/policy-rc.d`, which maintainer scripts ask.

Owns that file for the time of one install of packages. It must never replace or remove one that somebody else put
there.

Rules:
- it appears whole or not at all, and never over another: then the operator's own policy decides, and that is told;
- it goes when the packages are installed, whatever became of them; where a run was killed, the next one takes it away;
- by its bytes it is ours: one that somebody has changed is theirs.

Source: invoke-rc.d(8), deb-systemd-invoke(1p): exit status 101 is "action forbidden by policy".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.host.tree.atomic_file import write_file

POLICY = Path("/usr/sbin/policy-rc.d")
TEXT = b"""#!/bin/sh
# Put here by `appliance install` while it installs OS packages: none of their services starts by that.
# Left by an interrupted run? The next one removes it.
exit 101
"""


@contextmanager
def no_service_starts(path: Path) -> Iterator[bool]:
    """Forbid the start of services for the length of a block.

    Yields:
        False where somebody else's policy stands there, which was left alone.
    """
    is_ours = _put(path)
    try:
        yield is_ours
    finally:
        if is_ours:
            remove_policy(path)


def remove_policy(path: Path) -> bool:
    """Take ours away, where it stands; returns whether it did."""
    if not _is_ours(path):
        return False
    path.unlink()
    return True


def _put(path: Path) -> bool:
    new = path.with_name(f".{path.name}.appliance")
    new.unlink(missing_ok=True)
    write_file(new, TEXT, 0o755)
    try:
        os.link(new, path)  # unlike a rename, never over another
    except FileExistsError:
        return _is_ours(path)
    finally:
        new.unlink()
    return True


def _is_ours(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == TEXT
