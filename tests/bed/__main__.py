"""Builds what the bed needs, once: `python -m tests.bed build [NAME…]`.

Without names: everything. A second run is instant. What is needed of the machine is said when it is missing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bed import guest_abilities, guest_bed, vagrant_box
from tests.bed.abilities import COMMANDS, missing_commands
from tests.bed.cache import Say
from tests.bed.host import BedError
from tests.bed.trees import TREES, build

PARTS: dict[str, Callable[[Say], Path]] = {name: partial(build, tree) for name, tree in TREES.items()}
PARTS["guest"] = guest_bed.build
PARTS["vagrant"] = vagrant_box.build


def say(text: str) -> None:
    """Tell a person what is done."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """The command line: returns the exit code."""
    names = list(arguments[1:]) or list(PARTS)
    if arguments[:1] != ["build"] or not set(names) <= set(PARTS):
        say(f"usage: python -m tests.bed build [{' '.join(PARTS)}]")
        return 2
    if os.geteuid() != 0:
        say("bed: only root can build and boot hosts; their tests will be skipped")
        return 0
    if missing := missing_commands((*COMMANDS, *guest_abilities.COMMANDS, *vagrant_box.COMMANDS)):
        say(f"error: this machine lacks {' '.join(missing)}\nhint: .ci/system bed")
        return 1
    started = time.monotonic()
    try:
        for name in names:
            PARTS[name](say)
    except BedError as error:
        say(f"error: {error}")
        return 1
    say(f"bed: {' '.join(names)} ready ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
