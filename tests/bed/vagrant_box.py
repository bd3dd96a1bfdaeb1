"""What the `Vagrantfile` needs: a box, the kernel beside it, a key, and a stick between the two machines.

Owns the folder `vagrant` in the bed's cache, a link to the one that was built last. Vagrant downloads nothing: the box
has the packages of the guest, rsync, and what Vagrant asks of a box. The key is made here and opens no other machine.

Source: vagrant-libvirt, "Box Format"; Vagrant, "Creating a Base Box".
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from tests.bed import guest_image, trees
from tests.bed.cache import Say, bed_folder, built, key_of
from tests.bed.guest_image import DISK_BYTES, copy_kernel, copy_tree, make_disk
from tests.bed.tools import call
from tests.bed.usb import make_fat32

COMMANDS = ("ssh-keygen",)
TREE = replace(guest_image.TREE, name="vagrant-tree-12", packages=(*guest_image.TREE.packages, "rsync"))
"""With rsync, by which Vagrant copies the checkout into the builder; it would fetch it from the network otherwise."""
STICK_BYTES = 1 << 30
_TEXTS = {
    "etc/hostname": "debian\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/systemd/network/80-dhcp.network": "[Match]\nName=eth*\n[Network]\nDHCP=ipv4\n",
    "etc/systemd/system/ssh.service.d/keys.conf": "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\n",
}
_USER_ID = 1000


def build(say: Say) -> Path:
    """The folder with `box`, `kernel`, `initrd`, `key` and `stick`: half a minute besides the guest's tree. Needs root.

    Raises:
        BedError: a tool is missing or failed.
    """
    key = key_of(TREE.key(), *_TEXTS.values(), Path(__file__).read_text())
    tree = trees.build(TREE, say)
    folder = built(f"vagrant-{key}", lambda to: _make(tree, to), say, "the Vagrant box (about half a minute)")
    link = bed_folder() / "vagrant"
    if not link.is_symlink() or os.readlink(link) != folder.name:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
    return link


def _make(tree: Path, folder: Path) -> None:
    folder.mkdir()
    copy_kernel(tree, folder)
    call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "airgap-appliance bed", "-f", str(folder / "key")])
    root = folder / "root"
    copy_tree(tree, root)
    _arrange(root, (folder / "key.pub").read_text())
    make_disk(root, folder / "disk", DISK_BYTES)
    shutil.rmtree(root)
    _pack(folder)
    make_fat32(folder / "stick", STICK_BYTES)


def _arrange(root: Path, public_key: str) -> None:
    """The user, the key, sudo without a question, an address by DHCP, and a server for ssh."""
    for name, text in _TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "etc/sudoers.d/vagrant").chmod(0o440)
    call(["useradd", "--root", str(root), "--create-home", "--shell", "/bin/bash", "--uid", str(_USER_ID), "vagrant"])
    keys = root / "home/vagrant/.ssh"
    keys.mkdir(mode=0o700)
    (keys / "authorized_keys").write_text(public_key)
    for path in (keys, keys / "authorized_keys"):
        os.chown(path, _USER_ID, _USER_ID)
    call(["systemctl", f"--root={root}", "--quiet", "enable", "ssh.service", "systemd-networkd.service"])


def _pack(folder: Path) -> None:
    about = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_BYTES >> 30}
    (folder / "metadata.json").write_text(json.dumps(about))
    (folder / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n')
    call(["qemu-img", "convert", "-O", "qcow2", str(folder / "disk"), str(folder / "box.img")])
    members = ("metadata.json", "Vagrantfile", "box.img")
    call(["tar", "-C", str(folder), "-cf", str(folder / "box"), *members])
    for name in (*members, "disk"):
        (folder / name).unlink()
