"""What a path is that `appliance verify` cannot verify: neither a bundle or stick, nor a release, nor a model's file.

Owns the words for it, with the step to take. It judges no trust: what it names is not verified, and exit code 2.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from bundles.gguf.foreign import FIRST_BYTES, name_foreign
from bundles.oci.layout import LAYOUT_FILE
from bundles.report import shell_word
from signing.errors import DamagedError, UsageError

MAGIC = b"GGUF"
_DEVICES = (
    (stat.S_ISBLK, "a block device", "mount it, then name the folder"),
    (stat.S_ISCHR, "a character device", "name a folder, or a model's file"),
    (stat.S_ISFIFO, "a pipe", "write what comes from it to a folder first"),
    (stat.S_ISSOCK, "a socket", "name a folder, or a model's file"),
)
_IMAGES = ((257, b"ustar", "a tar archive", "unpack it"), (0x8001, b"CD001", "the image of a CD or DVD", "mount it"))
_PACKED = ("a gzip file", "a bzip2 file", "an xz file", "a zstd file", "a ZIP file")


def is_gguf(path: Path) -> bool:
    """Whether a file begins like a GGUF.

    Args:
        path: of a plain file.

    Raises:
        DamagedError: its bytes cannot be read.
    """
    return _read(path, 0, len(MAGIC)) == MAGIC


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
        return (
            f"one file of the bundle in {bundle}",
            f"verify the whole: appliance verify {shell_word(str(bundle), 'FOLDER')}",
        )
    for offset, magic, what, step in _IMAGES:
        if _read(path, offset, len(magic)) == magic:
            return what, f"{step}, then name the folder"
    what, _ = name_foreign(_read(path, 0, FIRST_BYTES))
    return what, "unpack it, then name the folder" if what.startswith(_PACKED) else "name the folder of the bundle"


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        try:
            return os.pread(file.fileno(), size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise DamagedError(
                "file.unreadable",
                str(path),
                expected="readable bytes",
                found=os.strerror(errno.EIO),
                hint="copy the file again, and check this disk",
            ) from None
