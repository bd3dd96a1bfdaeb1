"""A command in a tree, isolated from this machine: no network, no other process, no file but those given.

Owns the namespaces and mounts. The tree itself is never written: a file system in memory lies over it and is gone with
the command.

Rules:
- root needs no user namespace; an ordinary user gets one, and is root in it;
- a trial command runs first, so that a machine that refuses is not mistaken for a command that fails;
- a command that exceeds its time has failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.builder.debian.rootfs import NO_NAMESPACES, unfit

TIMEOUT_S = 600
TIMED_OUT = 124
"""The exit code of a command that exceeded its time, as `timeout` of coreutils has it."""
WORK = "/work"
_DEVICES = "null zero random urandom"
# $1: an empty folder, $2: the tree, $3: the folder that becomes /work; then pairs of a name in it and a file that
# appears there read-only, and after `--` the command.
_ENTER = f"""
mount --make-rprivate /
mount -t tmpfs -o mode=0755 cell "$1"
mkdir "$1/below" "$1/above" "$1/changes" "$1/root"
mount --bind "$2" "$1/below"
mount -t overlay -o "lowerdir=$1/below,upperdir=$1/above,workdir=$1/changes" cell "$1/root"
mount -t proc proc "$1/root/proc"
mount -t tmpfs -o mode=0755 cell "$1/root/dev"
for name in {_DEVICES}; do
    : > "$1/root/dev/$name"
    mount --bind "/dev/$name" "$1/root/dev/$name"
done
mount -t tmpfs cell "$1/root/tmp"
mkdir "$1/root{WORK}"
mount --bind "$3" "$1/root{WORK}"
root="$1/root"
shift 3
while [ "$1" != -- ]; do
    : >>"$root{WORK}/$1"
    mount --bind "$2" "$root{WORK}/$1"
    mount -o remount,bind,ro "$root{WORK}/$1"
    shift 2
done
shift
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1 "$@"
"""


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """The result of a command: its exit code, standard output and standard error."""

    code: int
    output: str
    complaint: str


def run_in(
    tree: Path,
    work: Path,
    command: Sequence[str],
    *,
    many_owners: bool = False,
    read_only: Mapping[str, Path] | None = None,
    timeout_s: float | None = None,
) -> SandboxResult:
    """Run a command as root of a tree.

    Args:
        tree: a root file system; not written to.
        work: appears as `/work`, writable.
        command: a program of the tree, and its arguments.
        many_owners: whether the command creates files of several owners, as the installation of packages does.
        read_only: large files that appear in `/work` without a copy, by their names there.
        timeout_s: how long the command may run; by default `TIMEOUT_S`.

    Raises:
        HostUnfitError: this machine refuses the namespaces or mounts.
    """
    with tempfile.TemporaryDirectory(prefix="cell-") as room:
        enter = ["unshare", *_user(many_owners), "--mount", "--net", "--ipc", "--uts", "--pid", "--fork"]
        enter += ["--kill-child", "--", "sh", "-euc", _ENTER, "sh", room, str(tree), str(work)]
        enter += [*(word for name, path in (read_only or {}).items() for word in (name, str(path.resolve()))), "--"]
        trial = _run([*enter, "true"])
        if trial.code:
            found = " ".join(trial.complaint.split())[-300:] or f"exit code {trial.code}"
            raise unfit("namespaces and mounts of its own", found, NO_NAMESPACES)
        return _run([*enter, *command], timeout_s)


def _user(many_owners: bool) -> list[str]:
    if os.geteuid() == 0:
        return []
    if many_owners and shutil.which("newuidmap") is None:
        raise unfit("newuidmap", "none", "apt-get install uidmap")
    return ["--user", "--map-root-user", *(["--map-auto"] if many_owners else [])]


def _run(argv: Sequence[str], timeout_s: float | None = None) -> SandboxResult:
    limit_s = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        return SandboxResult(TIMED_OUT, "", f"it did not end within {limit_s:g} s")
    return SandboxResult(done.returncode, done.stdout, done.stderr)
