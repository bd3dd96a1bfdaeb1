"""`verify.pyz`: the verifier for a bare host, written from the running program.

Owns the archive's bytes. Its members are listed in `bundles.bare_host.pyz_members`.

Rules:
- the same program gives the same bytes, in any folder, for any user, at any time;
- members are in the order of the list, stored without compression (compressors differ), dated 1980, with mode 0644.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

import bundles
from bundles.bare_host.pyz_members import MAIN, MEMBERS

_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


@cache
def build_verifier() -> bytes:
    """The bytes of `verify.pyz`, for `python3 -I -B verify.pyz`. About 350 KB; made once in a process."""
    top = Path(bundles.__file__).resolve().parent.parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, source in (("__main__.py", MAIN), *((member, member) for member in MEMBERS)):
            info = zipfile.ZipInfo(name, _FIRST_ZIP_DATE)
            info.create_system = _UNIX
            info.external_attr = 0o100644 << 16
            archive.writestr(info, (top / source).read_bytes())
    return buffer.getvalue()
