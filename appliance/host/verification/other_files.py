"""What a path is that `appliance verify` cannot verify: neither a bundle or stick, nor a release, nor a model's file.

Owns the words for it, with the step to take. It judges no trust: what it names is not verified, and exit code 2.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bundles.gguf.foreign import FIRST_BYTES, name_foreign
from bundles.oci.layout import LAYOUT_FILE
from signing.errors import UsageError

MAGIC = b"GGUF"
_DEVICES = (
    (stat.S_ISBLK, "a block device", "mount it, then name the folder"),
    (stat.S_ISCHR, "a character device", "name a folder, or a model's file"),
    (stat.S_ISFIFO, "a pipe", "write what comes from it to a folder first"),
    (stat.S_ISSOCK, "a socket", "name a folder, or a model's file"),
)
_IMAGES = ((257, b"ustar", "a tar archive", "unpack it"), (0x8001, b"CD001", "the image of a CD or DVD", "mount it"))
_PACKED = ("a gzip file", "a bzip2 file", "an xz file", "a zstd file", "a ZIP file")


def is_model_file(path: Path) -> bool:
    """Whether a file begins like a GGUF.

    Args:
        path: of a plain file.
    """
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def not_verifiable(path: Path) -> UsageError:
    """The error for a path that exists and is nothing that can be verified.

    Args:
        path: a plain file that is no model, or a special file.
    """
    what, hint = _describe(path)
    return UsageError(
        "verify.not-a-bundle",
        str(path),
        expected="a bundle or stick (the folder with oci-layout), an installed release, or a model's GGUF file",
        found=what,
        hint=hint,
    )


def _describe(path: Path) -> tuple[str, str]:
    mode = path.stat().st_mode
    for is_kind, what, hint in _DEVICES:
        if is_kind(mode):
            return what, hint
    bundle = next((folder for folder in path.absolute().parents if (folder / LAYOUT_FILE).is_file()), None)
    if bundle is not None:
        return f"one file of the bundle in {bundle}", f"verify the whole: appliance verify {bundle}"
    with path.open("rb") as stream:
        start = stream.read(FIRST_BYTES)
        for offset, magic, what, step in _IMAGES:
            if os.pread(stream.fileno(), len(magic), offset) == magic:
                return what, f"{step}, then name the folder"
    what, _ = name_foreign(start)
    return what, "unpack it, then name the folder" if what.startswith(_PACKED) else "name the folder of the bundle"
