"""Reading source archives: their metadata.

Owns how one file is read from an sdist without unpacking it. It must never write a file or follow a link.

Rules:
- the archive has been compared with the lock, but others wrote what is in it: only a regular file is read, up to a
  limit;
- it is read from the front, since a compressed archive has no index: about 1 s for 80 MB.

Source: PyPA, source distribution format.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

from packaging.metadata import RawMetadata

from appliance.builder.wheels.core_metadata import parse_core_metadata
from signing.errors import DamagedError

MAX_TEXT_BYTES = 8 << 20


def sdist_metadata(path: Path) -> RawMetadata:
    """The fields of the archive's PKG-INFO.

    Raises:
        DamagedError: no readable source archive.
    """
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                _, _, inner = member.name.partition("/")
                if inner == "PKG-INFO" and member.isreg() and member.size <= MAX_TEXT_BYTES:
                    stream = archive.extractfile(member)
                    return parse_core_metadata(stream.read() if stream else b"")
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise _not_an_sdist(path, str(error)) from None
    raise _not_an_sdist(path, "no PKG-INFO")


def _not_an_sdist(path: Path, found: str) -> DamagedError:
    return DamagedError("sdist.unreadable", path.name, expected="a source archive (tar.gz)", found=found)
