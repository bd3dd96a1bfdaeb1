"""Writing a bundle's folder so that it appears whole or not at all.

Owns `dist/<name>-<version>`, and the folder beside it in which a new one is written. It knows blobs and small files,
not what they mean.

Rules (threat T35):
- a new bundle is written in `.<name>-<version>.making` and gets its name by one rename, after one sync;
- before that rename the files inside count for nothing, so they need no rename and no sync of their own;
- an interrupted run is continued there: its files are compared byte for byte before they are used;
- a blob that the finished bundle already holds with the right bytes is neither written nor touched again;
- a finished bundle with another manifest is replaced; its blobs that stay are linked, not copied;
- blobs of a finished bundle are read-only, and so is their folder. Files that signers add lie in other folders.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from bundles.chunks.chunk import Chunk
from bundles.durability import start_writing, sync_file_system, write_past_cache
from bundles.medium import PART_FILE, Medium, explain_write, sync_folder
from bundles.oci.layout import INDEX_FILE, blob_path
from bundles.oci.manifest import MAX_INDEX_BYTES, write_index
from signing.digest import READ_BYTES, sha256
from signing.errors import DamagedError

BLOBS = "blobs/sha256"
_Bytes = bytes | memoryview


class BundleWriter:
    """Writes or completes one bundle. `put` may be called from several threads.

    Args:
        final: the bundle's folder, which may hold a finished bundle.
        making: the folder for files that the bundle lacks; beside it by default. Elsewhere it is never finished.
    """

    def __init__(self, final: Path, making: Path | None = None) -> None:
        self.final = Medium(final)
        self.making = Medium(making or final.with_name(f".{final.name}.making"))
        self._blobs: dict[Chunk, None] = {}
        self._lock = Lock()
        self.written = 0
        """How many files had to be written."""

    def put(self, data: _Bytes) -> Chunk:
        """Add a blob. Cost: one hash, and one comparison with the file that is there."""
        chunk = Chunk(sha256(data), len(data))
        with self._lock:
            is_known = chunk in self._blobs
            self._blobs[chunk] = None
        path = blob_path(chunk.sha256)
        if not is_known and not _holds(self.final, path, data) and not _holds(self.making, path, data):
            _create(self.making.root / path, data)
            with self._lock:
                self.written += 1
        return chunk

    def finish(self, manifest: bytes, small_files: dict[str, bytes]) -> Path:
        """Give the bundle its name, and seal its blobs.

        Args:
            manifest: the bundle's OCI manifest; every blob that it lists was put before.
            small_files: all other files by path: metadata, targets, README.txt and oci-layout.

        Returns:
            The bundle's folder.
        """
        self.put(manifest)
        index = write_index(manifest)
        if self._is_finished(manifest):
            self._complete(small_files)
        else:
            for path, data in {**small_files, INDEX_FILE: index}.items():
                if not _holds(self.making, path, data):
                    _create(self.making.root / path, data)
                    self.written += 1
            self._link_kept_blobs()
            _remove_extra(self.making, {*small_files, INDEX_FILE})
            self._swap()
        return self.final.root

    def _is_finished(self, manifest: bytes) -> bool:
        if not self.final.root.is_dir():
            return False
        index = self.final.read(INDEX_FILE, MAX_INDEX_BYTES)
        # Compared as bytes: a damaged index is written again, not parsed.
        return index == write_index(manifest)

    def _complete(self, small_files: dict[str, bytes]) -> None:
        # The same bundle: restore damaged blobs, renew metadata, and leave every right file as it is.
        made = [path for chunk in self._blobs if (self.making.root / (path := blob_path(chunk.sha256))).exists()]
        if made:
            _sync(self.making.root)
            _unseal(self.final.root)
            for path in made:
                os.replace(self.making.root / path, self.final.root / path)
            sync_folder(self.final.root / BLOBS)
        for path, data in small_files.items():
            self.written += int(self.final.write(path, data))
        _remove_extra(self.final, {*small_files, INDEX_FILE})
        _seal(self.final.root)
        remove_bundle(self.making.root)

    def _link_kept_blobs(self) -> None:
        wanted = {blob_path(chunk.sha256) for chunk in self._blobs}
        for path in list(self.making.walk("blobs")):
            if path not in wanted:
                (self.making.root / path).unlink()
        for path in sorted(wanted):
            made = self.making.root / path
            if not made.exists():
                made.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.final.root / path, made)

    def _swap(self) -> None:
        final, old = self.final.root, self.final.root.with_name(f".{self.final.root.name}.old")
        _seal(self.making.root)
        _sync(self.making.root)
        remove_bundle(old)
        if final.exists():
            os.replace(final, old)
        os.replace(self.making.root, final)
        sync_folder(final.parent)
        remove_bundle(old)


def remove_bundle(path: Path) -> None:
    """Remove a bundle's folder, finished or not; nothing happens where there is none."""
    if path.is_dir():
        _unseal(path)
        shutil.rmtree(path)


def _seal(root: Path) -> None:
    for entry in os.scandir(root / BLOBS):
        if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mode & 0o7777 != 0o444:
            os.chmod(entry.path, 0o444)
    if (root / BLOBS).stat().st_mode & 0o7777 != 0o555:
        (root / BLOBS).chmod(0o555)


def _unseal(root: Path) -> None:
    # Replacing or removing a file needs write permission on its folder only.
    with suppress(FileNotFoundError):
        (root / BLOBS).chmod(0o755)


def _remove_extra(medium: Medium, wanted: Iterable[str]) -> None:
    # Metadata, BOOT or signatures of an earlier publication, and a partial file of a killed process.
    for folder in ("metadata", "targets", "BOOT", "attestations"):
        for path in [path for path in medium.walk(folder) if path not in wanted]:
            medium.remove(path)
    (medium.root / PART_FILE).unlink(missing_ok=True)


def _holds(medium: Medium, path: str, data: _Bytes) -> bool:
    """Whether a file with these bytes is there; it is read and compared piece by piece."""
    try:
        descriptor = medium.open(path)
    except (FileNotFoundError, DamagedError):
        return False
    view = memoryview(data)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if os.fstat(descriptor).st_size != len(view):
            return False
        for at in range(0, len(view), READ_BYTES):
            if stream.read(READ_BYTES) != view[at : at + READ_BYTES]:
                return False
    return True


def _create(path: Path, data: _Bytes) -> None:
    """Create a file in the folder that is being written; writing to the disk begins, and nothing waits for it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        path.unlink(missing_ok=True)
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, 0o644)
        try:
            os.fchmod(descriptor, 0o644)
            write_past_cache(descriptor, data)
            start_writing(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        fault = explain_write(error, path, len(data))
        with suppress(OSError):  # free the space
            path.unlink()
        raise fault from None


def _sync(folder: Path) -> None:
    try:
        sync_file_system(folder)
    except OSError as error:
        raise explain_write(error, folder, 0) from None
