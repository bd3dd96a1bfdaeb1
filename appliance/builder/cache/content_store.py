"""The download cache: bytes on the builder's disk, named by their SHA-256.

Owns the folder (`sha256/<2 hex>/<hex>`), how a finished file enters it, and where unfinished ones wait. It must
never be trusted: `has` compares the size only, so each caller hashes a file before it uses it
(`appliance.builder.lock.pinned_fetch` does).

Rules:
- a file enters by fsync and rename, under its own digest, and is never changed afterwards;
- an unfinished file lies in `partial/`, locked by the process that writes it, and may be continued by a later one;
- everything may be deleted at any time: the cache holds nothing that a lock cannot bring back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bundles import medium
from signing.digest import Digest
from signing.errors import ApplianceError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_root(env: Mapping[str, str]) -> Path:
    """The folder of this user's cache, by AIRGAP_APPLIANCE_CACHE, XDG_CACHE_HOME or the home folder.

    Raises:
        UsageError: this user has none of them.
    """
    if chosen := env.get("AIRGAP_APPLIANCE_CACHE"):
        return Path(chosen).absolute()
    if (base := env.get("XDG_CACHE_HOME", "")).startswith("/"):
        return Path(base) / "airgap-appliance"
    if (home := home_folder(env)) is None:
        raise UsageError(
            "cache.nowhere",
            "the cache of downloads",
            expected="a home folder, or a folder in AIRGAP_APPLIANCE_CACHE",
            found="a user without either",
            hint="export AIRGAP_APPLIANCE_CACHE=/A/FOLDER/OF/YOURS",
        )
    return home / ".cache" / "airgap-appliance"


def home_folder(env: Mapping[str, str]) -> Path | None:
    """The home folder of this user, by HOME or by the password database; None where neither has one."""
    if home := env.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


class Cache:
    """A content-addressed folder.

    Args:
        root: created at the first write; folders below it have mode 0755.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checked: set[Digest] = set()
        """What this process has already hashed here."""

    def path(self, digest: Digest) -> Path:
        """Where the file with this digest lies, whether or not it is there."""
        return self.root / "sha256" / digest[:2] / digest

    def has(self, digest: Digest, size_bytes: int) -> bool:
        """Whether a regular file of that name and size is there. Its bytes are not read."""
        try:
            status = self.path(digest).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes

    def partial(self, name: str) -> Path:
        """The path of the unfinished file called `name`, mostly a digest."""
        return self.folder("partial") / f"{name}.partial"

    @contextmanager
    def claim(self, name: str) -> Iterator[Path]:
        """Hold the unfinished file called `name` alone: another process that wants it waits.

        Yields:
            Its path; what an earlier run left is still in it. An empty one is removed at the end.
        """
        path = self.partial(name)
        with explain_full_disk(path):
            descriptor = _lock(path)
        try:
            yield path
        finally:
            # Once adopted, a file of this name belongs to another process, which holds it.
            if _is_at(descriptor, path) and os.fstat(descriptor).st_size == 0:
                path.unlink()
            os.close(descriptor)

    def adopt(self, temp_path: Path, digest: Digest) -> Path:
        """Move a finished file, on the same file system, to its place.

        Args:
            temp_path: whose bytes the caller has hashed.
            digest: what that hash was.
        """
        path = self.path(digest)
        self.folder("sha256", digest[:2])
        with explain_full_disk(path):
            _seal(temp_path)
            os.replace(temp_path, path)
            medium.sync_folder(path.parent)
        self.checked.add(digest)
        return path

    def discard(self, digest: Digest) -> None:
        """Remove a file whose bytes do not have the digest in its name."""
        self.checked.discard(digest)
        self.path(digest).unlink(missing_ok=True)

    def folder(self, *names: str) -> Path:
        """A folder below the root, created when absent; other caches (`runtime`) lie beside `sha256`.

        Raises:
            ApplianceError: it cannot be created.
        """
        path = self.root
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in names:
                path = path / name
                if not path.is_dir():
                    path.mkdir(exist_ok=True)
                    path.chmod(0o755)
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(path, 0) from None
            raise ApplianceError(
                "cache.unwritable",
                str(path),
                expected="a folder that can be written",
                found=error.strerror or str(error),
                hint="set AIRGAP_APPLIANCE_CACHE to a folder of yours",
            ) from None
        return path


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" from the system into our error about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, 0) from None
        raise


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to write what does not fit on the disk.

    Raises:
        ApplianceError: the file system of `folder` has less than `needed_bytes` free.
    """
    if shutil.disk_usage(folder).free < needed_bytes:
        raise disk_full(folder, needed_bytes)


def disk_full(path: Path, needed_bytes: int) -> ApplianceError:
    """The error for a file system without room.

    Args:
        path: the file or folder that is being written.
        needed_bytes: how much more is needed; 0 where unknown.
    """
    error = medium.disk_full(path, needed_bytes)
    error.hint = "make room, or set AIRGAP_APPLIANCE_CACHE to another disk; then run the same command again"
    return error


def _lock(path: Path) -> int:
    # The file may have been moved into the cache while this process waited: then a new one is created and locked.
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _seal(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o644)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
