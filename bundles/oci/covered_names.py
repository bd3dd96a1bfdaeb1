"""Which names may lie in the covered folders of a layout (FORMAT 1, threat T23).

Owns the grammar of names in `blobs/`, `metadata/`, `targets/`, `attestations/` and `BOOT/`, and the refusal of any
other. What lies elsewhere on a medium is litter, and is never opened.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from bundles.oci.layout import BOOT, COVERED, METADATA, Layout
from bundles.oci.litter import left_by
from signing.errors import NotTrustedError

_METADATA_PATH = re.compile(METADATA + r"/(?:[1-9][0-9]{0,18}\.(?:root|snapshot|targets)|timestamp)\.json\Z")
ATTESTATION_PATH = re.compile(r"attestations/([0-9a-f]{64})/([0-9a-f]{64})\.(oms|dsse)\Z")
"""The digest of the statement's subject, the signer's key id, and the format."""
_BOOT_PATH = re.compile(
    BOOT
    + r"/(?:BOOT\.sha256|serial-[1-9][0-9]{0,8}|verify\.pyz|root\.json|python3\.sha256|[0-9a-f]{64}\.(?:der|sig))\Z"
)
_MAX_NAMED = 10


def is_boot_path(path: str) -> bool:
    """Whether a file of this path may lie in `BOOT/` at all; its signed list names those that must."""
    return bool(_BOOT_PATH.match(path))


def is_attestation_path(path: str) -> bool:
    """Whether this is the path of a signature in another format."""
    return bool(ATTESTATION_PATH.match(path))


def is_metadata_path(path: str) -> bool:
    """Whether this is the path of a metadata file of TUF, of any version."""
    return bool(_METADATA_PATH.match(path))


def unlisted(layout: Layout, expected: Collection[str]) -> list[str]:
    """Find the files in the covered folders that do not belong there, and folders in which nothing lies.

    Args:
        layout: untrusted.
        expected: the paths that belong there; those of attestations and `BOOT/` are known by their form, since other
            checks compare their content.

    Returns:
        Paths, those of empty folders with a `/` at the end.

    Raises:
        NotTrustedError: a link, device or FIFO lies there.
    """
    found = (path for folder in COVERED for path in layout.medium.tree(folder))
    if layout.is_filling:
        found = (path for path in found if not path.endswith("/"))
    return [path for path in found if path not in expected and not (is_boot_path(path) or is_attestation_path(path))]


def refuse_unlisted(paths: Sequence[str]) -> None:
    """Raise the error for files that do not belong there; nothing where there are none.

    Raises:
        NotTrustedError: naming the first of them, and how many there are.
    """
    if not paths:
        return
    systems = sorted({left_by(path) for path in paths})
    hint = "somebody put files there; do not use this medium, ask a key holder"
    if "" not in systems:
        hint = f"{' and '.join(systems)} left these files: copy the bundle again without them"
    elif all(map(is_metadata_path, paths)):
        hint = "an older metadata file may be left from before: write this stick again; else ask a key holder"
    elif all(path.endswith("/") for path in paths):
        hint = "these folders are empty: remove them, or copy the bundle again"
    raise NotTrustedError(
        "layout.unlisted",
        ", ".join(paths[:_MAX_NAMED]),
        expected="only what the signed contents list",
        found=f"{len(paths)} more",
        hint=hint,
    )
