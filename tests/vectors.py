"""Where other projects' test vectors lie, if they lie beside this checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def vectors(name: str) -> Path:
    """The folder of one origin; skips, saying why, in a plain clone, and fails where CI promises it."""
    folder = VECTORS / name
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing, and CI promises it")
        pytest.skip(f"test vectors of other projects are not beside this checkout: {folder}")
    return folder
