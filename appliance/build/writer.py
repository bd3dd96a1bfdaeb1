"""Writing a bundle's folder so that it appears whole or not at all.

Owns `dist/<name>-<version>` and the folder beside it in which a new one is made. It knows blobs and small files, not
what they mean.

Rules (threat T35):
- a new bundle grows in `.<name>-<version>.making` and gets its name by one rename; an interrupted run is continued
  there;
- a blob that the finished bundle already holds with the right bytes is neither written nor touched again;
- a finished bundle with another manifest is replaced; its blobs that stay are linked, not copied.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bundles.contents import Chunk
from bundles.layout import INDEX_FILE, blob_path
from bundles.manifest import MAX_INDEX_BYTES, write_index
from bundles.medium import PART_FILE, Medium, explain_write, sync_folder
from signing.digest import sha256


class BundleWriter:
    """Makes or completes one bundle.

    Args:
        final: the bundle's folder, which may hold a finished bundle.
    """

    def __init__(self, final: Path) -> None:
        self.final = Medium(final)
        self.making = Medium(final.with_name(f".{final.name}.making"))
        self._blobs: dict[Chunk, None] = {}
        self.written = 0
        """How many files had to be written."""

    def put(self, data: bytes) -> Chunk:
        """Take a blob. Cost: one hash, and one comparison with what is there."""
        chunk = Chunk(sha256(data), len(data))
        if chunk not in self._blobs:
            self._blobs[chunk] = None
            if not _holds(self.final, chunk, data):
                self.written += _write(self.making, blob_path(chunk.sha256), data)
        return chunk

    def finish(self, manifest: bytes, small_files: dict[str, bytes]) -> Path:
        """Give the bundle its name.

        Args:
            manifest: its OCI manifest; every blob that it lists was put before.
            small_files: everything else by path: metadata, targets, README.txt and oci-layout.

        Returns:
            The bundle's folder.
        """
        self.put(manifest)
        index = write_index(manifest)
        if self._is_finished(manifest):
            self._complete(small_files)
        else:
            for path, data in {**small_files, INDEX_FILE: index}.items():
                self.written += _write(self.making, path, data)
            self._link_kept_blobs()
            _remove_extra(self.making, {*small_files, INDEX_FILE})
            self._swap()
        return self.final.root

    def _is_finished(self, manifest: bytes) -> bool:
        if not self.final.root.is_dir():
            return False
        index = self.final.read(INDEX_FILE, MAX_INDEX_BYTES)
        # Compared as bytes: a damaged index is written anew, not judged.
        return index == write_index(manifest)

    def _complete(self, small_files: dict[str, bytes]) -> None:
        # The same bundle: put back what was damaged, renew metadata, and leave every right file alone.
        for chunk in self._blobs:
            made = self.making.root / blob_path(chunk.sha256)
            if made.exists():
                os.replace(made, self.final.root / blob_path(chunk.sha256))
        for path, data in small_files.items():
            self.written += _write(self.final, path, data)
        _remove_extra(self.final, {*small_files, INDEX_FILE})
        shutil.rmtree(self.making.root, ignore_errors=True)

    def _link_kept_blobs(self) -> None:
        wanted = {blob_path(chunk.sha256) for chunk in self._blobs}
        for path in list(self.making.walk("blobs")) if self.making.root.is_dir() else []:
            if path not in wanted:
                (self.making.root / path).unlink()
        for path in sorted(wanted):
            made = self.making.root / path
            if not made.exists():
                made.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.final.root / path, made)
        sync_folder(self.making.root / "blobs" / "sha256")

    def _swap(self) -> None:
        final, old = self.final.root, self.final.root.with_name(f".{self.final.root.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.replace(final, old)
        os.replace(self.making.root, final)
        sync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def _remove_extra(medium: Medium, wanted: set[str]) -> None:
    # Metadata or BOOT of an earlier publication, whole and signed but not the newest; and what a kill left behind.
    for path in (*medium.walk("metadata"), *medium.walk("targets"), *medium.walk("BOOT")):
        if path not in wanted:
            (medium.root / path).unlink()
    (medium.root / PART_FILE).unlink(missing_ok=True)


def _holds(medium: Medium, chunk: Chunk, data: bytes) -> bool:
    return medium.root.is_dir() and medium.read(blob_path(chunk.sha256), chunk.size) == data


def _write(medium: Medium, path: str, data: bytes) -> int:
    try:
        medium.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write(error, medium.root, len(data)) from None
    return int(medium.write(path, data))
