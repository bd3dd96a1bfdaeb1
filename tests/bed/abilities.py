"""What this machine can do. A test that needs more is skipped, and says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

from tests.bed.cache import bed_folder
from tests.bed.cell import PATH, Cell
from tests.bed.host import BedError
from tests.bed.network import Network
from tests.bed.trees import KEYRING, Tree

COMMANDS = ("ip", "mmdebstrap", "nft", "nsenter", "strace", "systemd-nspawn", "unshare")
BUILD_HINT = "run `make bed`"


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
    try:
        Network().close()
    except BedError as error:
        return f"needs namespaces with nftables: {error}"
    return None


@cache
def no_strace() -> str | None:
    """Why this machine cannot name processes, or None when it can."""
    if missing := missing_commands(("strace",)):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    traced = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return None if traced.returncode == 0 else f"needs ptrace: {traced.stderr.strip()}"


@cache
def no_hosts(tree: Tree) -> str | None:
    """Why this machine boots no hosts of a tree, or None when it does."""
    if os.geteuid() != 0:
        return "needs root, to boot systemd"
    if missing := missing_commands(("systemd-nspawn",)):
        return f"needs {' '.join(missing)}: {BUILD_HINT}"
    if not (bed_folder() / tree.key()).is_dir():
        return f"needs the {tree.name} tree: {BUILD_HINT}"
    if reason := no_network():
        return reason
    try:
        Cell(["mount", "pid"], prepare="mount -t tmpfs bed /mnt").close()
    except BedError as error:
        return f"needs mounts: {error}"
    return None
