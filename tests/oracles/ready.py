"""An oracle's environment for a test: there, or a skip on a newcomer's machine and an error where CI promises it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.oracles.__main__ import place


def oracle(name: str) -> Path:
    """The folder of an oracle that was made."""
    folder = place(name)
    if not (folder / "ready").exists():
        if os.environ.get("CI") or os.environ.get("TIER") == "ci":
            raise RuntimeError(f"the oracle {name} is missing, and this run promises it: make oracles")
        pytest.skip(f"other people's verifiers are made by `make oracles`: {name}")
    return folder
