"""Several pieces of work that run at the same time, such as sticks that are filled together.

Owns what is known of each, and which of them is the slowest. `appliance.cli.console.progress` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.cli.console.figures import progress_figures
from bundles.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID


@dataclass
class Part:
    """One of several pieces of work.

    Args:
        event: the latest.
        began: when its present task began, in seconds.
        first: the first count of that task.
        tasks: how many tasks it has begun.
        bar: on a terminal.
    """

    event: Progress
    began: float
    first: int
    tasks: int = 1
    bar: TaskID | None = None

    @property
    def title(self) -> str:
        """The part, and what is done to it now, for people."""
        return f"{self.event.part}: {self.event.task}" if self.is_running else self.event.part

    @property
    def is_running(self) -> bool:
        """Whether bytes move: it has begun, and is not over."""
        return self.event.unit == "bytes" and not self.event.is_end

    def figures(self, now: float) -> str:
        """Done of total, rate and time left of its task; else in words where it stands, such as how it ended."""
        return progress_figures(self.event, self.first, now - self.began) if self.is_running else self.event.task

    def seconds_left(self, now: float) -> float:
        """How long its task still takes at the rate so far."""
        event = self.event
        moved, seconds = event.done - self.first, now - self.began
        return (event.total - event.done) * seconds / moved if moved > 0 and seconds > 0 else float("inf")


class Parts:
    """All parts of one piece of work."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self.started = self.shown = 0.0

    def take(self, event: Progress, now: float) -> Part:
        """Note an event, and give its part."""
        if not self._parts:
            self.started = self.shown = now
        part = self._parts.get(event.part)
        if part is None:
            part = self._parts[event.part] = Part(event, now, event.done)
        elif part.event.task != event.task:
            part.began, part.first, part.tasks = now, event.done, part.tasks + 1
        part.event = event
        return part

    def line(self, now: float) -> str:
        """How many parts are over, and the figures of the slowest one; empty where none is running."""
        running = [part for part in self._parts.values() if part.is_running]
        if not running:
            return ""
        # Who is at an earlier task has the later ones before it.
        slowest = min(running, key=lambda part: (part.tasks, -part.seconds_left(now)))
        over = sum(part.event.is_end for part in self._parts.values())
        return f"{over} of {len(self._parts)} done, slowest {slowest.title}, {slowest.figures(now)}"
