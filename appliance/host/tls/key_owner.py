"""Who may read the gateway's private key: root, and the user of the gateway's unit.

Owns this right on a whole machine. Below a prefix, one user runs everything. Engines have another user, so they cannot
read the key.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import USERS

_GATEWAY = USERS[1]
_MODE = 0o400


def give_key(prefix: Prefix, key: Path) -> None:
    """Let the gateway's unit read its key; nothing happens before the first install has made the user.

    Args:
        prefix: the host.
        key: the file.

    Raises:
        OSError: it is a link, or this user may not change its owner.
    """
    if not prefix.is_system:
        return
    try:
        owner = pwd.getpwnam(_GATEWAY).pw_uid
    except KeyError:
        return
    descriptor = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fchown(descriptor, owner, 0)
        os.fchmod(descriptor, _MODE)
    finally:
        os.close(descriptor)
