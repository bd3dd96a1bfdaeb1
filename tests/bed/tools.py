"""Programs of this machine that the bed calls."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from tests.bed.host import BedError


def call(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
    """Run a program without input and wait for it.

    Raises:
        BedError: it is not there, or failed; with what it said.
    """
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env)
    except OSError as error:
        raise BedError(f"{argv[0]} does not run: {error}") from error
    if done.returncode:
        raise BedError(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
