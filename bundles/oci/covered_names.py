"""Which names may lie in the covered folders of a layout (FORMAT 1, threat T23).

Owns the grammar of names in `blobs/`, `metadata/`, `targets/`, `attestations/` and `BOOT/`: any other is a refusal.
What lies elsewhere on a medium is litter, and is never opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bundles.oci.layout import ATTESTATIONS, BLOBS, BOOT, METADATA, TARGETS, Layout, blob_path
from signing.digest import Digest
from signing.errors import NotTrustedError

_METADATA_NAME = re.compile(r"(?:[1-9][0-9]{0,18}\.(?:root|snapshot|targets)|timestamp)\.json\Z")
ATTESTATION_PATH = re.compile(r"attestations/([0-9a-f]{64})/([0-9a-f]{64})\.(oms|dsse)\Z")
"""The digest of the statement's subject, the signer's key id, and the format."""
_TARGET_NAME = re.compile(r"targets/bundles/[^/]+/[^/]+/[0-9a-f]{64}\.manifest\.json\Z")
_BOOT_NAME = re.compile(
    r"BOOT/(?:BOOT\.sha256|serial-[1-9][0-9]{0,8}|verify\.pyz|root\.json|python3\.sha256|[0-9a-f]{64}\.(?:der|sig))\Z"
)


def is_boot_name(path: str) -> bool:
    """Whether a file of this name may lie in `BOOT/` at all; its signed list names those that must."""
    return bool(_BOOT_NAME.match(path))


def check_names(layout: Layout, known_blobs: Iterable[Digest]) -> None:
    """Refuse every name in the covered folders that does not belong there (threat T23).

    Args:
        layout: untrusted.
        known_blobs: those that the signed contents need.

    Raises:
        NotTrustedError: naming all of them.
    """
    medium = layout.medium
    known = {blob_path(digest) for digest in known_blobs}
    unknown = [path for path in medium.walk(BLOBS) if path not in known]
    unknown += [path for path in medium.walk(METADATA) if not _METADATA_NAME.match(path[len(METADATA) + 1 :])]
    unknown += [path for path in medium.walk(TARGETS) if not _TARGET_NAME.match(path)]
    unknown += [path for path in medium.walk(ATTESTATIONS) if not ATTESTATION_PATH.match(path)]
    unknown += [path for path in medium.walk(BOOT) if not is_boot_name(path)]
    if unknown:
        raise NotTrustedError(
            "layout.unlisted",
            ", ".join(unknown[:10]),
            expected="only what the signed contents list",
            found=f"{len(unknown)} more",
            hint="somebody put files there; do not use this medium, ask a key holder",
        )
