"""Folders and files of the cache that take long to build, each named by the digest of its inputs.

Owns how such an entry appears: whole, or not at all. It must never change one that is there: other inputs give another
name.

Rules:
- an entry is built under another name, synced to the disk and then renamed: after a power cut it is not empty;
- one process builds it, others wait; what a killed process left is removed by the next.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

from appliance.builder.cache.content_store import explain_full_disk
from bundles.durability import sync_file_system
from signing.digest import sha256

KEY_LENGTH = 16


def key_of(*parts: str) -> str:
    """The short name of an entry, by its inputs."""
    return sha256("\0".join(parts).encode())[:KEY_LENGTH]


def build_once(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The entry called `name`, built when it is not there.

    Args:
        folder: of the cache; exists.
        name: with its key, such as `debian-12-0123456789abcdef`.
        make: writes the entry to the path given, which does not exist.
    """
    done = folder / name
    if done.exists():
        return done
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return done
        unfinished = folder / f"{name}.unfinished"
        remove(unfinished)
        make(unfinished)
        with explain_full_disk(done):
            sync_file_system(folder)
        unfinished.rename(done)
        (folder / f"{name}.lock").unlink()
    return done


def remove(path: Path) -> None:
    """Remove a file or a tree, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
