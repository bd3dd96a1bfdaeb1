"""Root file systems of the systems that bundles are for: a small Debian, as an air-gapped site may have installed it.

Owns what is in them and how they are made (mmdebstrap). The proof of a closure and the test hosts use the same ones.
They are made on a connected machine and never written again: whoever uses one lays a file system in memory over it.

Rules:
- the mirror, its proxies and its certificates are those of this machine's own apt. No host name is written here, and
  none is left in the tree: its list of sources is empty;
- what a tree has is what a site's minimal installation has, and what test hosts need to be looked at. Nothing of the
  program's own: it must bring that with it;
- root makes a tree with the owners that a system has. An ordinary user makes one of the same files, all of them his
  own: good to look for packages and libraries in, not to boot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.builder.cache.built_once import build_once, key_of
from appliance.builder.cache.content_store import Cache
from appliance.builder.debian.apt import Mirror, machine_mirror, without_addresses
from appliance.builder.recipe.choices import SUITES
from bundles.progress import OnProgress, Progress, ignore
from signing.errors import ApplianceError, HostUnfitError

FOLDER = "bed"
"""In the cache; test hosts look for their trees there, too."""
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod"),
    *("python3", "openssl", "procps", "iproute2", "nftables"),
    *("openssh-server", "openssh-client"),
)
# Units that wake up by themselves would make two runs of one scenario differ; a key is made where it is needed.
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
    # Without a name of its own, a host takes the one that its bed gives it.
    'rm -f "$1"/etc/hostname; printf "127.0.0.1 localhost\\n::1 localhost\\n" > "$1"/etc/hosts',
)


@dataclass(frozen=True)
class Tree:
    """A root file system to build.

    Args:
        name: of its folder in the cache, such as `debian-12`.
        suite: Debian's code name.
        packages: besides what Debian calls essential, and apt.
        hooks: shell lines that finish the tree in `$1`.
    """

    name: str
    suite: str
    packages: tuple[str, ...] = PACKAGES
    hooks: tuple[str, ...] = HOOKS

    def options(self) -> list[str]:
        """How mmdebstrap is called, without what belongs to this machine."""
        return [
            *("--quiet", "--variant=minbase", "--format=directory", f"--include={','.join(self.packages)}"),
            *('--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"'),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *(f"--customize-hook={hook}" for hook in self.hooks),
        ]

    def key(self) -> str:
        """The folder's name: the tree is built anew when anything that shapes it has changed."""
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
    label = f"making a {tree.name} tree"

    def make(path: Path) -> None:
        on_progress(Progress(label, 0, 1, "steps"))
        _bootstrap(tree, path)
        on_progress(Progress(label, 1, 1, "steps"))

    return build_once(cache.folder(FOLDER), tree.key(), make)


def _bootstrap(tree: Tree, path: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise unfit("mmdebstrap", "none", "apt-get install mmdebstrap")
    if os.geteuid() == 0:
        _check(tree, *_mmdebstrap(tree, [], str(path), None))
        return
    if shutil.which("newuidmap") is None:
        raise unfit("newuidmap", "none", "apt-get install uidmap")
    # The folder of an ordinary user is often closed to the ids that he may map: the tree comes through a pipe.
    path.mkdir()
    unpack = ["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "--delay-directory-restore", "-C", str(path)]
    with subprocess.Popen(unpack, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        code, said = _mmdebstrap(tree, ["--mode=unshare", "--format=tar"], "-", tar.stdin)
        _, complaint = tar.communicate()
    _check(tree, code, said)
    _check(tree, tar.returncode, complaint.decode("utf-8", "replace"))


def _mmdebstrap(tree: Tree, options: list[str], target: str, out: IO[bytes] | None) -> tuple[int, str]:
    # A machine whose own apt knows no Debian may still reach the mirror that mmdebstrap knows.
    try:
        mirror = machine_mirror(tree.suite)
    except HostUnfitError:
        mirror = Mirror(())
    argv = ["mmdebstrap", *tree.options(), *(f"--aptopt={line}" for line in mirror.options), *options]
    argv += [tree.suite, target, *(["-"] if mirror.sources else [])]
    with tempfile.TemporaryFile() as sources:
        sources.write("\n".join((*mirror.sources, "")).encode())
        sources.seek(0)
        done = subprocess.run(
            argv, check=False, stdin=sources, stdout=out or subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    return done.returncode, done.stderr.decode("utf-8", "replace")


def _check(tree: Tree, code: int, said: str) -> None:
    if code == 0:
        return
    if os.geteuid() != 0 and any(word in said for word in ("unshare", "subuid")):
        raise unfit("namespaces for this user", without_addresses(said)[-300:], NO_NAMESPACES)
    raise _failed(tree, said)


def _failed(tree: Tree, said: str) -> ApplianceError:
    return ApplianceError(
        "tree.failed",
        f"the {tree.name} tree",
        expected="mmdebstrap to make it",
        found=without_addresses("\n".join(said.splitlines()[-15:])),
        hint="run this where there is a network; check `apt-get update` on this machine",
    )


NO_NAMESPACES = (
    "run it as root, or let this user make namespaces: sysctl kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0, and a line for it in /etc/subuid and /etc/subgid"
)


def unfit(what: str, found: str, hint: str) -> HostUnfitError:
    """The error for a machine that cannot make or enter a tree."""
    return HostUnfitError("tree.machine", what, expected="to make and enter a small Debian", found=found, hint=hint)
