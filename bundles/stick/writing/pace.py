"""How a stick is written while others are written, too.

Owns the limits that keep several sticks out of one another's way. A stick that is written alone has none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


def go_on() -> None:
    """Nobody has asked to stop."""


@dataclass(frozen=True)
class Pace:
    """What the writing of one stick may use.

    Args:
        threads: how many write to it and read from it at the same time; None for as many as suit a stick alone.
        turn: held while a block of the source is read, so that its disk reads in one place at a time; None where
            nothing else reads there.
        require_going: called before each file, and for each block that is written; raises where a person has
            interrupted the whole work.
    """

    threads: int | None = None
    turn: AbstractContextManager[object] | None = None
    require_going: Callable[[], None] = go_on


ALONE = Pace()
