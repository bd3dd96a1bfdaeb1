"""Recognises a disc whose names were shortened when it was burnt (FORMAT 1, Other media).

Owns the forms of such names. A plain ISO 9660 file system has names of 8 or 31 capital letters, and Joliet ones of 64
characters; only Rock Ridge, long Joliet names and UDF keep those of a bundle. What is recognised gives an error, and
nothing else: no file is ever read under a shortened name.
"""

from __future__ import annotations

import re

from bundles.oci.layout import LAYOUT_FILE, Layout
from signing.errors import DamagedError

_LAYOUT_NAME = re.compile(r"oci[_-]layo(?:ut)?\.?(?:;1)?\Z", re.IGNORECASE)
_MIN_STEM = 8
"""What ISO 9660 keeps of a name at least."""


def has_short_layout(layout: Layout) -> bool:
    """Whether `oci-layout` lies there under a name that ISO 9660 makes of it."""
    names = layout.medium.list("")
    return LAYOUT_FILE not in names and any(map(_LAYOUT_NAME.match, names))


def has_short_name(layout: Layout, path: str) -> bool:
    """Whether a file that is missing lies there under a shortened name.

    Args:
        layout: untrusted.
        path: of the missing file; its name begins with a digest.
    """
    folder, _, name = path.rpartition("/")
    stem = name.partition(".")[0].lower()
    found = (other.partition(".")[0].lower() for other in layout.medium.list(folder))
    return any(_MIN_STEM <= len(other) <= len(stem) and stem.startswith(other) for other in found)


def short_names(subject: str) -> DamagedError:
    """The error for such a disc."""
    return DamagedError(
        "medium.short-names",
        subject,
        expected="the names of a bundle, up to 78 characters each",
        found="shortened names: a disc that was burnt without Rock Ridge",
        hint="make the image again with long names: xorriso -as mkisofs -R -joliet-long -o disc.iso FOLDER; or UDF",
    )
