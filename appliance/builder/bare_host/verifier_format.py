"""What a `verify.pyz` can do: which format of `contents.json` it reads, and whether it copies the program.

Owns these two questions, answered from the archive's own source. Root keys have signed it; it is never run here.
"""

from __future__ import annotations

import ast
import io
import zipfile

_MEMBERS = ("bundles/contents/contents.py", "bundles/contents.py")
"""Where the source states it: today, and in version 0.1.0."""
_COPIER = "bundles/bootstrap_set.py"


def format_read_by(verifier: bytes) -> int:
    """The newest format that a verifier reads; 0 where its source does not state one.

    Args:
        verifier: bytes of a `verify.pyz`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(verifier)) as archive:
            tree = ast.parse(archive.read(next(name for name in _MEMBERS if name in archive.namelist())))
    except (zipfile.BadZipFile, StopIteration, SyntaxError, ValueError):
        return 0
    for node in tree.body:
        names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if isinstance(node, ast.Assign) and names == ["FORMAT"] and isinstance(node.value, ast.Constant):
            return node.value.value if type(node.value.value) is int else 0
    return 0


def copies_program(verifier: bytes) -> bool:
    """Whether a verifier copies the bundle's program and takes `--pin`; that of version 0.1.0 only verifies.

    Args:
        verifier: bytes of a `verify.pyz`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(verifier)) as archive:
            return _COPIER in archive.namelist()
    except zipfile.BadZipFile:
        return False
