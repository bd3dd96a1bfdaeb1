"""The disk of a guest: a Debian 12 host with the distribution's own kernel, and the bed's agent.

Owns what is in the image and how the disk is made: a tree, and one ext4 file system by mke2fs, without loop device and
without mount. It must never hold anything of the product: a guest is the bare host that the product comes to.

Rules:

- The file system has 4 KiB blocks and the verity feature, so that fs-verity can be tried on it.
- Disk, kernel and initrd are made once into the cache and never written to; guests write to an overlay.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.bed import trees
from tests.bed.cache import Say, bed_folder, built, key_of
from tests.bed.host import BedError
from tests.bed.tools import call

DISK_BYTES = 8 << 30
"""Sparse: it holds about 700 MB."""
FILES = Path(__file__).with_name("guest")

# The root disk is all that the guest needs to reach its other modules; a small initrd boots faster.
_INITRAMFS = "echo MODULES=list > conf.d/modules; printf 'virtio_pci\\nvirtio_blk\\next4\\n' > modules"
TREE = trees.Tree(
    "guest-tree-12",
    "bookworm",
    packages=(
        *trees.PACKAGES,
        *("linux-image-amd64", "initramfs-tools", "zstd", "sudo", "ca-certificates", "libgomp1", "libstdc++6"),
        # To look at sticks and seals with.
        *("fdisk", "usbutils", "fsverity", "cryptsetup-bin", "dmsetup", "e2fsprogs", "dosfstools", "exfatprogs"),
    ),
    hooks=(
        *trees.HOOKS,
        f'(cd "$1/etc/initramfs-tools"; {_INITRAMFS}); chroot "$1" update-initramfs -u',
    ),
)
_PORT_UNIT = "dev-virtio\\x2dports-org.airgap.test.device"
_TEXTS = {"etc/hostname": "guest\n", "etc/fstab": "/dev/vda / ext4 defaults 0 1\n"}


@dataclass(frozen=True)
class Image:
    """What a guest boots: `disk`, `kernel` and `initrd` in one folder, which is named by all that shaped them."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system: raw, never written to."""
        return self.folder / "disk"

    @property
    def name(self) -> str:
        """The folder's name, which holds the key."""
        return self.folder.name


def place() -> Image:
    """Where the image of this source is, whether or not it was built."""
    agent = [(FILES / name).read_text() for name in ("agent.py", "bed-agent.service")]
    key = key_of(TREE.key(), str(DISK_BYTES), *_TEXTS.values(), *agent, Path(__file__).read_text())
    return Image(bed_folder() / f"guest-{key}")


def build_image(say: Say) -> Image:
    """The image, built when it is not there: seconds, and two minutes for the tree. Needs root.

    Args:
        say: told what is done.

    Raises:
        BedError: a tool is missing or failed.
    """
    image = place()
    if not image.folder.exists():
        tree = trees.build(TREE, say)
        built(image.name, lambda folder: _make(tree, folder), say, "the guest's disk (about 10 s)")
    return image


def make_disk(tree: Path, disk: Path, size_bytes: int) -> None:
    """Make an ext4 file system that holds a tree.

    Args:
        tree: with the owners and modes that the disk shall have.
        disk: made; raw and sparse.
        size_bytes: of the disk.
    """
    with disk.open("wb") as file:
        file.truncate(size_bytes)
    call(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "verity", "-d", str(tree), str(disk)])


def copy_tree(tree: Path, to: Path) -> None:
    """Copy a tree with owners, modes, links and capabilities."""
    call(["cp", "--archive", "--no-target-directory", str(tree), str(to)])


def copy_kernel(tree: Path, folder: Path) -> None:
    """Copy a tree's kernel and initrd out of it, as `kernel` and `initrd`."""
    for pattern, name in (("vmlinuz-*", "kernel"), ("initrd.img-*", "initrd")):
        found = list((tree / "boot").glob(pattern))
        if len(found) != 1:
            raise BedError(f"{tree}/boot holds {len(found)} files {pattern}, not 1")
        shutil.copyfile(found[0], folder / name)


def _make(tree: Path, folder: Path) -> None:
    folder.mkdir()
    copy_kernel(tree, folder)
    root = folder / "root"
    copy_tree(tree, root)
    _arrange(root)
    make_disk(root, folder / "disk", DISK_BYTES)
    shutil.rmtree(root)


def _arrange(root: Path) -> None:
    """Turn a tree into a host that boots from one disk and answers the bed."""
    for name, text in _TEXTS.items():
        (root / name).write_text(text)
    units = root / "etc/systemd/system"
    _install(FILES / "agent.py", root / "usr/local/sbin/bed-agent", "755")
    _install(FILES / "bed-agent.service", units / "bed-agent.service", "644")
    wants = units / f"{_PORT_UNIT}.wants"
    wants.mkdir()
    (wants / "bed-agent.service").symlink_to("../bed-agent.service")


def _install(source: Path, target: Path, mode: str) -> None:
    call(["install", "-m", mode, str(source), str(target)])
