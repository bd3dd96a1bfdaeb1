"""What this machine can do. A test that needs more is skipped, and says what is missing.

Rules:

- What the machine itself refuses (`LACKS`) is found out with its own programs, never with the bed's: a bed that is
  broken must not look like a machine that cannot.
- Everything else that is missing was not installed or not built, and that can be helped: the CI tier takes no such
  excuse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from tests.bed.cache import bed_folder
from tests.bed.cell import PATH
from tests.bed.host import BedError
from tests.bed.network import Network
from tests.bed.trees import KEYRING, Tree

COMMANDS = ("ip", "mmdebstrap", "nft", "nsenter", "strace", "systemd-nspawn", "unshare")
BUILD_HINT = "run `make bed`"
LACKS = "this machine lacks "
"""How a reason begins that no command of ours can help."""
_USER = ["--user", "--map-root-user"]
_NETWORK = "ip link set lo up && nft add table inet probe"
_HOSTS = """
mount -t tmpfs probe /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mount -t cgroup2 cgroup2 /mnt/work
"""


def missing_commands(names: tuple[str, ...] = COMMANDS) -> list[str]:
    """The programs that the bed needs and this machine lacks."""
    missing = [name for name in names if shutil.which(name, path=PATH) is None]
    if "mmdebstrap" in names and not os.path.exists(KEYRING):
        missing.append("debian-archive-keyring")
    return missing


@cache
def no_network() -> str | None:
    """Why this machine has no counted network, or None when it has."""
    if missing := missing_commands(("ip", "nft", "nsenter", "unshare")):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    namespace = ["unshare", *([] if os.geteuid() == 0 else _USER), "--net"]
    if refusal := _refusal([*namespace, "sh", "-ec", _NETWORK]):
        return f"{LACKS}namespaces with nftables: {refusal}"
    try:
        Network().close()
    except BedError as error:
        return f"the counted network does not work: {error}"
    return None


@cache
def no_strace() -> str | None:
    """Why this machine cannot name processes, or None when it can."""
    if missing := missing_commands(("strace",)):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    refusal = _refusal(["strace", "-o", "/dev/null", "true"])
    return f"{LACKS}ptrace: {refusal}" if refusal else None


@cache
def no_hosts(tree: Tree) -> str | None:
    """Why this machine boots no hosts of a tree, or None when it does."""
    if reason := no_root():
        return reason
    if missing := missing_commands(("systemd-nspawn",)):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    if not (bed_folder() / tree.key()).is_dir():
        return f"needs the {tree.name} tree: {BUILD_HINT}"
    if reason := no_network():
        return reason
    refusal = _refusal(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", _HOSTS])
    return f"{LACKS}mounts in namespaces: {refusal}" if refusal else None


def no_root() -> str | None:
    """Why this process may neither build nor boot hosts, or None when it may."""
    return None if os.geteuid() == 0 else f"{LACKS}root for this user"


def _refusal(argv: Sequence[str]) -> str | None:
    """What a program said that failed, in one line."""
    ended = subprocess.run(argv, capture_output=True, text=True, errors="replace", env={**os.environ, "PATH": PATH})
    if ended.returncode == 0:
        return None
    return " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
