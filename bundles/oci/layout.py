"""The OCI image layout that a bundle is, on whatever medium.

Owns the names inside it (FORMAT 1): where metadata, targets, the manifest and blobs lie. It reads through a `Medium`
and decides nothing about trust. Which other names may lie there is in `bundles.oci.covered_names`.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from bundles.chunks.chunk import Chunk
from bundles.medium import Medium, SpoolMedium
from signing.digest import Digest
from signing.errors import ApplianceError, DamagedError
from signing.verify import Chain, consistent_path

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}'
README_FILE, STICK_FILE = "README.txt", "STICK.json"
"""For people who find a medium; their content decides nothing."""
PARITY = "parity"
"""Beside the covered folders: what a lost stick is rebuilt from; a hint without authority (FORMAT 14)."""
BLOBS, METADATA, TARGETS, ATTESTATIONS, BOOT = "blobs", "metadata", "targets", "attestations", "BOOT"
BLOB_FOLDER = f"{BLOBS}/sha256"
COVERED = (BLOBS, METADATA, TARGETS, ATTESTATIONS, BOOT)
"""The folders in which a file that this format does not give is a refusal."""


def blob_path(digest: Digest) -> str:
    """Where a blob lies: `blobs/sha256/<hex>`."""
    return f"{BLOBS}/sha256/{digest}"


def target_name(name: str, version: str) -> str:
    """The TUF target that stands for a bundle: `bundles/<name>/<version>/manifest.json`."""
    return f"bundles/{name}/{version}/manifest.json"


def target_path(name: str, version: str, digest: Digest) -> str:
    """Where that target lies in the layout."""
    return f"{TARGETS}/{consistent_path(target_name(name, version), digest)}"


class Layout:
    """A bundle, stick or installed release, seen as files.

    Args:
        path: the folder that holds `oci-layout`.
        is_filling: whether it is a spool that is filling still: names that end in `.part` and empty folders may lie in
            its covered folders, and are passed over.
    """

    def __init__(self, path: Path, is_filling: bool = False) -> None:
        self.path = path
        self.is_filling = is_filling
        self.medium = SpoolMedium(path) if is_filling else Medium(path)

    def chain(self, root: bytes) -> Chain:
        """The untrusted side of a chain of trust, from this layout, under a pinned root."""
        return Chain(
            root,
            read_metadata=lambda name, most: self.medium.read(f"{METADATA}/{name}", most),
            read_target=lambda path, most: self.medium.read(f"{TARGETS}/{path}", most),
        )

    def holds(self, chunk: Chunk) -> bool:
        """Whether a blob of this name can be opened; it states nothing about its bytes."""
        try:
            os.close(self.open_chunk(chunk))
        except ApplianceError:
            return False
        return True

    def open_chunk(self, chunk: Chunk) -> int:
        """Open a chunk's blob; the caller closes the descriptor and hashes what it reads.

        Raises:
            DamagedError: the blob is not here.
            NotTrustedError: it is no regular file.
        """
        try:
            return self.medium.open(blob_path(chunk.sha256))
        except FileNotFoundError:
            raise DamagedError(
                "blob.missing",
                blob_path(chunk.sha256),
                expected=f"{chunk.size} bytes",
                found="no file",
                hint="copy it again",
            ) from None
