"""One stream that people may look at: whole lines, in colour where it is a terminal.

Owns where text goes and when it is coloured. It must never change, wrap or cut a text: `appliance.cli.console.terminal`
has made what comes from outside harmless.

Rules:
- colour only on a terminal that knows it (`TERM` is not `dumb`), and not where `NO_COLOR` is set;
- every text is on its way when `print` returns, so that two streams keep the order in which they were used;
- a reader that went away gets nothing more, and the command goes on to its own end: its exit code is what it found.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Literal, TextIO, TypeAlias

Style: TypeAlias = Literal["bold", "bold red", "green"]
STYLES: dict[Style, str] = {"bold": "\x1b[1m", "bold red": "\x1b[1;31m", "green": "\x1b[32m"}
_PLAIN = "\x1b[0m"


class Stream:
    """A file for text.

    Args:
        file: None is standard output or error, whichever file that is at the moment of writing.
        stderr: which of the two.
    """

    def __init__(self, file: TextIO | None, *, stderr: bool) -> None:
        self._file = file
        self._stderr = stderr

    @property
    def file(self) -> TextIO | None:
        """Where text goes now; None where this process was started without such a stream."""
        return self._file or (sys.stderr if self._stderr else sys.stdout)

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches."""
        return self.file is not None and self.file.isatty()

    def print(self, text: str, style: Style | None = None, end: str = "\n") -> None:
        """Write a text.

        Args:
            text: harmless.
            style: of `STYLES`, or None.
            end: what follows it.
        """
        if self.file is None:
            return
        if style is not None and self._is_coloured():
            text = f"{STYLES[style]}{text}{_PLAIN}"
        try:
            self.file.write(text + end)
            self.file.flush()
        except BrokenPipeError:
            discard(self.file)

    def _is_coloured(self) -> bool:
        return self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def discard(file: TextIO) -> None:
    """Send what a file still holds, and all that follows, nowhere.

    Args:
        file: a pipe whose reader went away.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
