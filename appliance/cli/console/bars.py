"""Progress bars on a terminal, drawn by `rich`.

Owns how a bar looks. Loaded with the first bar only: most commands end without one, and `rich` takes long to load.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from appliance.cli.console.stream import Stream


class StreamConsole(Console):
    """A console that lets `appliance.cli.main` decide what a broken pipe means; `rich` would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise what `rich` would hide."""
        raise BrokenPipeError


def progress_bars(stream: Stream) -> Progress:
    """Bars on a stream, each with a description and its figures; not started yet."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        console=StreamConsole(file=stream.file, markup=False, highlight=False, emoji=False, soft_wrap=True),
    )
