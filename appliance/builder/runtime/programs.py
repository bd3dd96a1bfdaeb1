"""The programs of a built runtime, unpacked from its wheel so that a build can run them.

Owns which members of the wheel are unpacked, and where. It starts nothing.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from appliance.builder.runtime.repack import LIBRARY_FOLDER

VARIANT_FILE = "libggml-cpu-{}.so"
"""The library of a CPU variant, by the variant's name."""
_VARIANT = VARIANT_FILE.partition("{")[0]


def unpack_programs(wheel: Path, folder: Path, variants: Path | None = None) -> None:
    """Unpack the programs and libraries of a runtime. Each byte is read and written once.

    Args:
        wheel: of the runtime, verified by the caller.
        folder: gets programs and libraries; exists.
        variants: gets the CPU variants, which must not lie beside a program that may not choose; None leaves them out.
    """
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            parent, _, name = info.filename.rpartition("/")
            target = variants if name.startswith(_VARIANT) else folder
            if parent == LIBRARY_FOLDER and target is not None:
                with archive.open(info) as stream, (target / name).open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
                (target / name).chmod(0o755)
