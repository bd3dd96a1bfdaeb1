"""The one grammar for paths inside a bundle (threat T22).

Owns which relative paths may stand in `contents.json`. They are checked when a bundle is built and again when it is
read. So no path can leave its folder, collide on a file system without case, or be impossible on FAT32.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from signing.errors import NotTrustedError

MAX_PATH = 240
_PART = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+@=-]{0,199}\Z")
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
GRAMMAR = "parts of A-Z a-z 0-9 . _ + @ = -, joined by /, starting with a letter, digit, _ or +, not ending with a dot"


def check_path(path: object) -> str:
    """Return the path where it follows the grammar.

    Raises:
        NotTrustedError: it is no text, absolute, has `..`, a reserved name, or a character outside the grammar.
    """
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH or not path.isascii():
        raise _refuse(path)
    for part in path.split("/"):
        if not _PART.match(part) or part.endswith(".") or part.split(".")[0].lower() in _RESERVED:
            raise _refuse(path)
    return path


def check_name(name: object) -> str:
    """Return a single part of a path, for example a bundle's version, where it follows the grammar.

    Raises:
        NotTrustedError: as `check_path`, or there is a `/` in it.
    """
    checked = check_path(name)
    if "/" in checked:
        raise _refuse(name)
    return checked


def check_unique(paths: Iterable[str], subject: str) -> None:
    """Refuse two paths that one file system could take for the same, or one that is the folder of another.

    Raises:
        NotTrustedError: naming the second of the two.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        folded = unicodedata.normalize("NFC", path).casefold()
        parents = {folded[:at] for at, letter in enumerate(folded) if letter == "/"}
        if folded in seen or folded in folders or parents & seen:
            raise NotTrustedError("path.collision", subject, expected="distinct paths", found=path)
        seen.add(folded)
        folders |= parents


def _refuse(path: object) -> NotTrustedError:
    return NotTrustedError("path.refused", repr(path)[:120], expected=GRAMMAR)
