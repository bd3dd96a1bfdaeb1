"""The root file systems of test hosts: a small Debian, as an air-gapped site may have installed it.

Owns what is in them and how they are made (mmdebstrap). They are made on a connected machine and never written again:
hosts lay a file system in memory over them.

Rules:

- The mirror, its proxies and its certificates are those of this machine's own apt. No host name is written here, and
  none is left in the tree: its list of sources is empty.
- What a tree has is what a site's minimal installation has, and what scenarios need to look at it. Nothing of the
  program's own: it must bring that with it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bed.cache import Say, built, key_of
from tests.bed.host import BedError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod"),
    *("python3", "openssl", "procps", "iproute2", "nftables"),
    *("openssh-server", "openssh-client"),
)
BARE_PACKAGES = ("python3", "openssl", "busybox")
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


DEBIAN_11 = Tree("debian-11", "bullseye", BARE_PACKAGES, HOOKS[-3:])
"""A bare host with the oldest programs that verify a stick: Python 3.9, OpenSSL 1.1. It is entered, never booted."""
DEBIAN_12 = Tree("debian-12", "bookworm")
DEBIAN_13 = Tree("debian-13", "trixie")
TREES = {tree.name: tree for tree in (DEBIAN_11, DEBIAN_12, DEBIAN_13)}


def build(tree: Tree, say: Say) -> Path:
    """The tree's folder, built when it is not there (about a minute, 250 MB).

    Raises:
        BedError: mmdebstrap failed; the error ends with its last lines.
    """
    return built(tree.key(), lambda path: _bootstrap(tree, path), say, f"the {tree.name} tree (about a minute)")


def _bootstrap(tree: Tree, path: Path) -> None:
    argv = ["mmdebstrap", *tree.options(), *_acquire_options(), tree.suite, str(path)]
    if sources := _sources(tree.suite):
        argv.append("-")
    ended = subprocess.run(argv, input="\n".join(sources) + "\n", capture_output=True, text=True)
    if ended.returncode != 0:
        raise BedError(f"mmdebstrap ended with {ended.returncode}:\n" + "\n".join(ended.stderr.splitlines()[-15:]))


def _sources(suite: str) -> list[str]:
    """Lines for sources.list that name this machine's mirrors; none where its apt knows no Debian."""
    fields = "$(LABEL)|$(REPO_URI)"
    listed = subprocess.run(["apt-get", "indextargets", "--format", fields], capture_output=True, text=True)
    mirrors = dict(line.split("|", 1) for line in reversed(listed.stdout.splitlines()) if "|" in line)
    if "Debian" not in mirrors:
        return []
    signed = f"deb [signed-by={KEYRING}]"
    lines = [f"{signed} {mirrors['Debian']} {name} main" for name in (suite, f"{suite}-updates")]
    if "Debian-Security" in mirrors:
        lines.append(f"{signed} {mirrors['Debian-Security']} {suite}-security main")
    return lines


def _acquire_options() -> list[str]:
    """How this machine's apt reaches its mirror: proxies and certificates."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout.splitlines()
    wanted = [
        line for line in dumped if line.startswith(("Acquire::http", "Acquire::https")) and not line.endswith('"";')
    ]
    return [f"--aptopt={line}" for line in wanted]
