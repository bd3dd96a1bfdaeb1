"""The root file systems of test hosts: those of `appliance.builder.debian.rootfs`, with more packages."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.builder.cache.content_store import Cache, cache_root
from appliance.builder.debian import rootfs as product
from appliance.builder.debian.apt import KEYRING
from appliance.builder.debian.rootfs import DEBIAN_12, DEBIAN_13, HOOKS, PACKAGES, Tree
from signing.errors import ApplianceError
from tests.bed.cache import Say, timed
from tests.bed.host import BedError

__all__ = ["DEBIAN_11", "DEBIAN_12", "DEBIAN_13", "HOOKS", "KEYRING", "PACKAGES", "TREES", "Tree", "build"]

BARE_PACKAGES = ("python3", "openssl", "busybox")
DEBIAN_11 = Tree("debian-11", "bullseye", BARE_PACKAGES, HOOKS[-3:])
"""A bare host with the oldest programs that verify a stick: Python 3.9, OpenSSL 1.1. It is entered, never booted."""
TREES = {tree.name: tree for tree in (DEBIAN_11, DEBIAN_12, DEBIAN_13)}


def build(tree: Tree, say: Say) -> Path:
    """The tree's folder, built when it is not there (about a minute, 250 MB).

    Raises:
        BedError: mmdebstrap failed; the error ends with its last lines.
    """
    with timed(tree.key(), say, f"the {tree.name} tree (about a minute)") as on_start:
        try:
            return product.build(tree, Cache(cache_root(os.environ)), lambda _: on_start())
        except ApplianceError as error:
            raise BedError(str(error)) from error
