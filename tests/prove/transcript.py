"""What a proof prints: numbered steps with what each proves, the commands as typed, digests, and times.

Owns the form of the text and the one way in which a proof fails. Everything goes to one stream, as it happens.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

WIDTH = 160
"""Longer lines of a command's output are cut; digests fit."""


class UnprovenError(AssertionError):
    """Something was not as it must be: what, what was expected, and what was found."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        super().__init__(f"{what}\n  expected {expected}\n  found    {found}")


def expect(what: str, expected: object, found: object) -> None:
    """Two values must be equal.

    Raises:
        UnprovenError: they are not.
    """
    if expected != found:
        raise UnprovenError(what, expected, found)


def expect_in(what: str, part: str, text: str) -> None:
    """A text must hold a part, whatever its white space.

    Raises:
        UnprovenError: it does not.
    """
    if " ".join(part.split()) not in " ".join(text.split()):
        raise UnprovenError(what, f"a text with {part!r}", text.strip()[-1500:] or "nothing")


@dataclass(frozen=True)
class ProvenStep:
    """A step that was proven: its title, what it proves, and how long it took in seconds."""

    title: str
    proves: str
    seconds: float


class Transcript:
    """The text of one proof.

    Args:
        write: prints one line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.proven: list[ProvenStep] = []

    @contextmanager
    def step(self, title: str, proves: str) -> Iterator[None]:
        """One step; where the block ends without an error, it is proven."""
        started = time.monotonic()
        self.write(f"\n{len(self.proven) + 1}. {title}")
        yield
        seconds = time.monotonic() - started
        self.write(f"   proved: {proves}")
        self.write(f"   took {seconds:.1f} s, load of this machine {os.getloadavg()[0]:.1f}")
        self.proven.append(ProvenStep(title, proves, seconds))

    def command(self, argv: Sequence[str], code: int, seconds: float, text: str) -> None:
        """A command as it was typed, how it ended, and what is shown of its output."""
        self.typed(shlex.join(argv), code, seconds, text)

    def typed(self, line: str, code: int, seconds: float, text: str) -> None:
        """As `command`, of a line for a shell."""
        self.write(f"   # {line}")
        self.lines(text)
        self.write(f"   exit code {code}, {seconds:.1f} s")

    def lines(self, text: str) -> None:
        """Some lines of output."""
        for line in text.rstrip().splitlines():
            self.write(f"     {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}")

    def summary(self) -> None:
        """The steps once more, with their times."""
        width = max(len(one.title) for one in self.proven)
        self.write("")
        for number, one in enumerate(self.proven, 1):
            self.write(f"{number:>3}. {one.title:<{width}}  {one.seconds:>6.1f} s  {one.proves}")
        self.write(f"     {'all steps':<{width}}  {sum(one.seconds for one in self.proven):>6.1f} s")
