"""`/usr/sbin/policy-rc.d`, the policy that keeps services from starting while their packages are installed.

Owns that file while packages are installed. It must never replace or remove a policy of the operator.

Rules:
- the file appears whole or not at all, and never replaces another. Where the operator has a policy, that one decides,
  and the caller gets to know it;
- the file is removed after the installation, successful or not; where a run was killed, the next one removes it;
- a file is ours only where its bytes are ours: one that was edited belongs to the operator.

Source: invoke-rc.d(8), deb-systemd-invoke(1p): exit status 101 is "action forbidden by policy".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.host.layout.atomic_file import write_file

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
        False where the operator has another policy there, which is left alone.
    """
    is_ours = _put(path)
    try:
        yield is_ours
    finally:
        if is_ours:
            remove_policy(path)


def remove_policy(path: Path) -> bool:
    """Remove our policy where it is there; returns whether it was."""
    if not _is_ours(path):
        return False
    path.unlink()
    return True


def _put(path: Path) -> bool:
    new = path.with_name(f".{path.name}.appliance")
    new.unlink(missing_ok=True)
    write_file(new, TEXT, 0o755)
    try:
        os.link(new, path)  # unlike a rename, this never replaces a file
    except FileExistsError:
        return _is_ours(path)
    finally:
        new.unlink()
    return True


def _is_ours(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == TEXT
