"""Root file systems of the systems that bundles are for: a small Debian, as an air-gapped site may have installed it.

Owns their content and how they are built (mmdebstrap). The proof of a closure and the test hosts use the same ones.
They are built on a connected machine and never changed: each user mounts a file system in memory over one.

Rules:
- the mirror, its proxies and its certificates are those of this machine's own apt;
- no host name is written here, and none is left in the tree: its list of sources is empty;
- a tree has what a site's minimal installation has, and what tests need to examine a host;
- a tree has nothing that this program needs: the bundle must bring that;
- built by root, a tree has the owners that a system has; built by an ordinary user, all files are that user's. The
  second has the same packages and libraries, but cannot boot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.builder.cache.built_entries import build_once, key_of
from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.apt import Mirror, machine_mirror, without_addresses
from appliance.builder.recipe.choices import SUITES
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import ApplianceError, HostUnfitError

FOLDER = "bed"
"""In the cache; test hosts use the trees there, too."""
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod"),
    *("python3", "openssl", "procps", "iproute2", "nftables"),
    *("openssh-server", "openssh-client"),
)
# Units that start by a timer would make two runs of one scenario differ; host keys are made where they are needed.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
    "systemd-firstboot.service",
    "console-getty.service",
)
LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
HOOKS = (
    'chroot "$1" passwd --delete root >/dev/null',
    'chroot "$1" systemctl --quiet mask ' + " ".join(MASKED),
    'chroot "$1" systemctl --quiet disable ssh.service',
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf',
    ': > "$1"/etc/apt/sources.list; : > "$1"/etc/machine-id; : > "$1"/etc/resolv.conf',
    # Without a hostname of its own, a host takes the one that its container or machine gives it.
    'rm -f "$1"/etc/hostname; printf "127.0.0.1 localhost\\n::1 localhost\\n" > "$1"/etc/hosts',
)


@dataclass(frozen=True)
class Tree:
    """A root file system to build.

    Args:
        name: of its folder in the cache, such as `debian-12`.
        suite: Debian's code name.
        packages: besides the essential ones and apt.
        hooks: shell lines that finish the tree in `$1`.
    """

    name: str
    suite: str
    packages: tuple[str, ...] = PACKAGES
    hooks: tuple[str, ...] = HOOKS

    def options(self) -> list[str]:
        """The arguments of mmdebstrap, without those that depend on this machine."""
        return [
            *("--quiet", "--variant=minbase", "--format=directory", f"--include={','.join(self.packages)}"),
            *('--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"'),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *(f"--customize-hook={hook}" for hook in self.hooks),
        ]

    def key(self) -> str:
        """The folder's name: another suite, package or hook gives another tree."""
        return f"{self.name}-{key_of(self.suite, *self.options())}"


DEBIAN_12 = Tree("debian-12", SUITES["debian-12"])
DEBIAN_13 = Tree("debian-13", SUITES["debian-13"])
TREES = {tree.name: tree for tree in (DEBIAN_12, DEBIAN_13)}


def build(tree: Tree, cache: Cache, on_progress: OnProgress = ignore) -> Path:
    """The tree's folder, built when it is not there (about a minute, 250 MB).

    Raises:
        HostUnfitError: this machine has no mmdebstrap or no mirror of Debian, or refuses namespaces to this user.
        ApplianceError: mmdebstrap failed; the error has its last lines.
    """
    label = f"building a {tree.name} tree"

    def make(path: Path) -> None:
        on_progress(Progress(label, 0, 1, "steps"))
        _bootstrap(tree, path)
        on_progress(Progress(label, 1, 1, "steps"))

    return build_once(cache.folder(FOLDER), tree.key(), make)


def _bootstrap(tree: Tree, path: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise unfit("mmdebstrap", "none", "apt-get install mmdebstrap")
    if os.geteuid() == 0:
        _check(tree, *_mmdebstrap(tree, [], str(path), None, _own_mounts()))
        return
    if shutil.which("newuidmap") is None:
        raise unfit("newuidmap", "none", "apt-get install uidmap")
    # The mapped ids of an ordinary user can often not write to that user's folders: the tree comes through a pipe.
    path.mkdir()
    unpack = ["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "--delay-directory-restore", "-C", str(path)]
    with subprocess.Popen(unpack, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        code, errors = _mmdebstrap(tree, ["--mode=unshare", "--format=tar"], "-", tar.stdin)
        _, tar_errors = tar.communicate()
    _check(tree, code, errors)
    _check(tree, tar.returncode, tar_errors.decode("utf-8", "replace"))


def _own_mounts() -> list[str]:
    """The words before a command that mounts: when it is killed, what it has mounted goes with it."""
    words = ["unshare", "--mount"]
    try:
        done = subprocess.run([*words, "true"], check=False, capture_output=True)
    except OSError:
        return []
    return [] if done.returncode else words


def _mmdebstrap(
    tree: Tree, options: list[str], target: str, out: IO[bytes] | None, before: Sequence[str] = ()
) -> tuple[int, str]:
    # A machine whose own apt has no Debian mirror may still reach the default one of mmdebstrap.
    try:
        mirror = machine_mirror(tree.suite)
    except HostUnfitError:
        mirror = Mirror(())
    argv = [*before, "mmdebstrap", *tree.options(), *(f"--aptopt={line}" for line in mirror.options), *options]
    argv += [tree.suite, target, *(["-"] if mirror.sources else [])]
    with tempfile.TemporaryFile() as sources:
        sources.write("\n".join((*mirror.sources, "")).encode())
        sources.seek(0)
        done = subprocess.run(
            argv, check=False, stdin=sources, stdout=out or subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    return done.returncode, done.stderr.decode("utf-8", "replace")


def _check(tree: Tree, code: int, errors: str) -> None:
    if code == 0:
        return
    if os.geteuid() != 0 and any(word in errors for word in ("unshare", "subuid")):
        raise unfit("namespaces for this user", without_addresses(errors)[-300:], NO_NAMESPACES)
    raise _failed(tree, errors)


def _failed(tree: Tree, errors: str) -> ApplianceError:
    return ApplianceError(
        "tree.failed",
        f"the {tree.name} tree",
        expected="mmdebstrap to build it",
        found=without_addresses("\n".join(errors.splitlines()[-15:])),
        hint="run this where there is a network; check `apt-get update` on this machine",
    )


NO_NAMESPACES = (
    "run it as root, or let this user create namespaces: sysctl kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0, and a line for it in /etc/subuid and /etc/subgid"
)


def unfit(what: str, found: str, hint: str) -> HostUnfitError:
    """The error for a machine that cannot build or enter a tree."""
    return HostUnfitError("tree.machine", what, expected="to build and enter a small Debian", found=found, hint=hint)
