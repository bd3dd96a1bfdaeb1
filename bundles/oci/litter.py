"""What lies on a medium beside the bundle (threat T23).

Owns the names at the root of a medium that are the format's own, and those that operating systems leave behind. Nothing
that it names is ever opened, or decides anything: outside the covered folders such files are harmless.
"""

from __future__ import annotations

import re
from functools import lru_cache

from bundles.medium import PART_FILE, PARTS_FOLDER
from bundles.oci.layout import COVERED, INDEX_FILE, LAYOUT_FILE, PARITY, README_FILE, STICK_FILE, Layout
from bundles.report import escape

MAX_BESIDE = 20

_SYSTEMS = {
    "macOS": (
        r"\.DS_Store|\._.*|\.Trashes?|\.Spotlight-V100|\.fseventsd|\.TemporaryItems|\.DocumentRevisions-V100|"
        r"\.VolumeIcon\.icns|\.apdisk|\.AppleD(?:ouble|B|esktop)|\.metadata_never_index|\.com\.apple\..*|__MACOSX"
    ),
    "Windows": (
        r"System Volume Information|\$RECYCLE\.BIN|RECYCLE[RD]|Thumbs\.db|ehthumbs(?:_vista)?\.db|desktop\.ini|"
        r"FOUND\.[0-9]{3}|BOOTEX\.LOG|WPSettings\.dat|IndexerVolumeGuid"
    ),
    "Linux": r"\.Trash-[0-9]+|lost\+found|\.directory|\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+|\.xdg-volume-info",
}
_OWN = {*COVERED, LAYOUT_FILE, INDEX_FILE, README_FILE, STICK_FILE, PART_FILE, PARTS_FOLDER, PARITY}


def left_by(path: str) -> str:
    """The operating system that leaves files or folders of this name on media: `macOS`; empty where none does."""
    parts = path.split("/")
    return next((system for system, names in _left_by().items() if any(map(names.match, parts))), "")


@lru_cache(maxsize=1)
def _left_by() -> dict[str, re.Pattern[str]]:
    # Compiled for the first such name: most media have none, and the start of a check is to be short.
    flags = re.IGNORECASE | re.DOTALL
    return {system: re.compile(f"(?:{names})\\Z", flags) for system, names in _SYSTEMS.items()}


def beside(layout: Layout) -> tuple[str, ...]:
    """Names at the root of a medium that the format does not give, sorted."""
    return tuple(name for name in layout.medium.list("") if name not in _OWN)


def describe_beside(layout: Layout) -> dict[str, object]:
    """What lies on a medium beside the bundle, as members of a JSON object.

    Returns:
        `beside`: at most 20 names, escaped, each with the system that leaves such files; and how many were left out.
    """
    names = beside(layout)
    found = [{"name": escape(name), "left_by": left_by(name)} for name in names[:MAX_BESIDE]]
    return {"beside": found, "beside_left_out": len(names) - len(found)}
