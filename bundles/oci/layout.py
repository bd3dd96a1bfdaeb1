"""The OCI image layout that a bundle is, on whatever medium.

Owns the names inside it (FORMAT 1): where metadata, targets, the manifest and blobs lie, and which names may lie
there at all. It reads through a `Medium` and decides nothing about trust.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bundles.contents.contents import Chunk
from bundles.medium import Medium
from signing.digest import Digest
from signing.errors import DamagedError, NotTrustedError
from signing.verify import Chain, consistent_path

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}'
BLOBS, METADATA, TARGETS, ATTESTATIONS, BOOT = "blobs", "metadata", "targets", "attestations", "BOOT"
_METADATA_NAME = re.compile(r"(?:[1-9][0-9]{0,18}\.(?:root|snapshot|targets)|timestamp)\.json\Z")
ATTESTATION_PATH = re.compile(r"attestations/([0-9a-f]{64})/([0-9a-f]{64})\.(oms|dsse)\Z")
"""The digest of the statement's subject, the signer's key id, and the format."""
_TARGET_NAME = re.compile(r"targets/bundles/[^/]+/[^/]+/[0-9a-f]{64}\.manifest\.json\Z")
_BOOT_NAME = re.compile(
    r"BOOT/(?:BOOT\.sha256|serial-[1-9][0-9]{0,8}|verify\.pyz|root\.json|python3\.sha256|[0-9a-f]{64}\.(?:der|sig))\Z"
)


def blob_path(digest: Digest) -> str:
    """Where a blob lies: `blobs/sha256/<hex>`."""
    return f"{BLOBS}/sha256/{digest}"


def target_name(name: str, version: str) -> str:
    """The TUF target that stands for a bundle: `bundles/<name>/<version>/manifest.json`."""
    return f"bundles/{name}/{version}/manifest.json"


def target_path(name: str, version: str, digest: Digest) -> str:
    """Where that target lies in the layout."""
    return f"{TARGETS}/{consistent_path(target_name(name, version), digest)}"


def is_boot_name(path: str) -> bool:
    """Whether a file of this name may lie in `BOOT/` at all; its signed list names those that must."""
    return bool(_BOOT_NAME.match(path))


class Layout:
    """A bundle, stick or installed release, seen as files.

    Args:
        path: the folder that holds `oci-layout`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.medium = Medium(path)

    def chain(self, root: bytes) -> Chain:
        """The untrusted side of a chain of trust, from this layout, under a pinned root."""
        return Chain(
            root,
            read_metadata=lambda name, most: self.medium.read(f"{METADATA}/{name}", most),
            read_target=lambda path, most: self.medium.read(f"{TARGETS}/{path}", most),
        )

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

    def check_names(self, known_blobs: Iterable[Digest]) -> None:
        """Refuse every name in the covered folders that does not belong there (threat T23).

        Raises:
            NotTrustedError: naming all of them.
        """
        known = {blob_path(digest) for digest in known_blobs}
        unknown = [path for path in self.medium.walk(BLOBS) if path not in known]
        unknown += [path for path in self.medium.walk(METADATA) if not _METADATA_NAME.match(path[len(METADATA) + 1 :])]
        unknown += [path for path in self.medium.walk(TARGETS) if not _TARGET_NAME.match(path)]
        unknown += [path for path in self.medium.walk(ATTESTATIONS) if not ATTESTATION_PATH.match(path)]
        unknown += [path for path in self.medium.walk(BOOT) if not is_boot_name(path)]
        if unknown:
            raise NotTrustedError(
                "layout.unlisted",
                ", ".join(unknown[:10]),
                expected="only what the signed contents list",
                found=f"{len(unknown)} more",
                hint="somebody put files there; do not use this medium, ask a key holder",
            )
