"""Which paths may be the root of a host's tree.

Owns the check, for the verifier on a bare host and for the installed program. It reads and makes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from signing.errors import UsageError

_ODD = ":%{}\"'\\$`"


def check_prefix(path: Path) -> Path:
    """The path that a person gave, absolute and without links in it.

    Raises:
        UsageError: something that is not a folder lies there, or the path holds a character that has a meaning of its
            own in a PATH, a shell or a template.
    """
    root = Path(os.path.realpath(path))
    odd = sorted({letter for letter in str(root) if letter in _ODD or not letter.isprintable()})
    if odd:
        raise UsageError(
            "prefix.characters",
            str(path),
            expected="a path without any of " + " ".join(_ODD),
            found=" ".join(ascii(letter) for letter in odd),
            hint="choose another --prefix",
        )
    if root.exists() and not root.is_dir():
        raise UsageError("prefix.not-a-folder", str(path), expected="a folder, or nothing yet", found="a file")
    return root
