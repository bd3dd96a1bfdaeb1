"""Progress of long work: one small value for each step, passed to a callback.

Owns the type only. Who shows it, and whether there is a terminal, is decided in `appliance.cli.console.terminal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a piece of work stands.

    Args:
        task: a short sentence part, for example `copying models/x.gguf`; stays the same while one bar is shown.
        done: how much is done, in `unit`.
        total: how much there is in all, in `unit`; 0 where unknown.
        unit: `bytes` or `steps`.
        part: which of several pieces of work that run at the same time, for example `stick 2, /media/b`; empty where
            there is one only. A part has one task after the other.
        is_end: the part is over, and `task` states how.
    """

    task: str
    done: int
    total: int
    unit: str = "bytes"
    part: str = ""
    is_end: bool = False


OnProgress = Callable[[Progress], None]


def ignore(_event: Progress) -> None:
    """A callback that does nothing."""
