"""Commands inside a tree that is entered, not booted: a bare host's programs without its init.

Owns the mounts around one command. Nothing is written to the tree: it is mounted read-only, memory lies over `/tmp` and
`/dev`, and the folder that stands for a stick is read-only at `/media`. There is no network.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bed.cell import PATH

_ENTER = """
tree=$1 stick=$2; shift 2
mount --bind "$tree" "$tree"
mount -t tmpfs tmpfs "$tree/tmp"
mount -t tmpfs tmpfs "$tree/dev"
mkdir "$tree/dev/shm"
: >"$tree/dev/null"
mount --bind /dev/null "$tree/dev/null"
mount --bind "$stick" "$tree/media"
mount -o remount,bind,ro "$tree/media"
mount -o remount,bind,ro "$tree"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C chroot "$tree" "$@"
"""


def enter(
    tree: Path, stick: Path, command: Sequence[str], stdin: str = "", timeout_s: int = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command with a tree as its root folder, and a folder of ours at `/media`. Needs root.

    Args:
        tree: of `tests.bed.trees`.
        stick: shown read-only at `/media`.
        command: as it is spelled inside.
        stdin: what it reads.
        timeout_s: after which it is killed.
    """
    return subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child"),
            *("sh", "-ec", _ENTER, "enter", str(tree), str(stick), *command),
        ],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PATH": PATH},
    )
