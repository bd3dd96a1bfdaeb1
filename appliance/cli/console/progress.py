"""How long work is shown: bars on a terminal, a line every few seconds anywhere else.

Owns the rendering of `bundles.progress.Progress`. May be called from several threads. Work that ends within a moment
shows nothing where there is no terminal, so that a log holds only what took time.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from appliance.cli.console.figures import progress_figures
from appliance.cli.console.parts import Parts
from appliance.cli.console.stream import Stream
from bundles.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

MIN_PAUSE_S = 3.0
MAX_PAUSE_S = 15.0
"""Between two lines of one piece of work, where there is no terminal."""


class ProgressView:
    """A callback for `bundles.progress` that shows each event.

    Args:
        stream: where it is shown.
        clock: seconds, monotonic.
    """

    _open: ClassVar[weakref.WeakSet[ProgressView]] = weakref.WeakSet()

    def __init__(self, stream: Stream, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = Lock()
        self._tasks: dict[str, _Task] = {}
        self._parts = Parts()
        self._bars: Bars | None = None

    @classmethod
    def close_all(cls) -> None:
        """End every bar on the screen, so that what is printed next stands below them."""
        for view in list(cls._open):
            view.close()

    def __call__(self, event: Progress) -> None:
        """Show one event."""
        with self._lock:
            if event.part:
                self._show_part(event)
                return
            task = self._tasks.get(event.task)
            if task is None:
                now = self._clock()
                task = self._tasks[event.task] = _Task(started=now, shown=now, first=event.done)
            if self._is_terminal:
                self._draw(task, event)
            else:
                self._print_line(task, event)
            if event.total and event.done >= event.total:
                self._finish(event.task)

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bars. The view can be used again."""
        with self._lock:
            self._tasks.clear()
            self._parts = Parts()
            self._stop_bars()

    @cached_property
    def _is_terminal(self) -> bool:
        # Asked once: the system's answer costs more than all else here while other threads work.
        return self._stream.is_terminal

    def _draw(self, task: _Task, event: Progress) -> None:
        bars = self._open_bars()
        if task.bar is None:
            task.bar = bars.add_task(_plain(event.task), total=event.total or None, figures="")
        figures = progress_figures(event, task.first, self._clock() - task.started)
        bars.update(task.bar, completed=event.done, total=event.total or None, figures=figures)

    def _open_bars(self) -> Bars:
        if self._bars is None:
            from appliance.cli.console.bars import progress_bars  # loaded with the first bar: it loads `rich`

            self._bars = progress_bars(self._stream)
            self._bars.start()
            ProgressView._open.add(self)
        return self._bars

    def _show_part(self, event: Progress) -> None:
        """One bar for each part, which stays until all are over; without a terminal, a line about the slowest."""
        now = self._clock()
        part = self._parts.take(event, now)
        title = _plain(part.title)
        if self._is_terminal:
            bars = self._open_bars()
            if part.bar is None:
                part.bar = bars.add_task(title, total=event.total or None, figures="")
            figures = _plain(part.figures(now))
            bars.update(part.bar, description=title, completed=event.done, total=event.total or None, figures=figures)
        elif event.is_end and now - self._parts.started >= MIN_PAUSE_S:
            self._stream.print(f"{title}: {_plain(part.figures(now))}")
        elif now - self._parts.shown >= _pause(now - self._parts.started) and (line := self._parts.line(now)):
            self._parts.shown = now
            self._stream.print(_plain(line))

    def _print_line(self, task: _Task, event: Progress) -> None:
        now = self._clock()
        is_last = bool(event.total) and event.done >= event.total and task.lines > 0
        if not is_last and now - task.shown < _pause(now - task.started):
            return
        task.shown = now
        task.lines += 1
        self._stream.print(f"{_plain(event.task)}: {progress_figures(event, task.first, now - task.started)}")

    def _finish(self, name: str) -> None:
        del self._tasks[name]
        if not self._tasks:
            self._stop_bars()

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            ProgressView._open.discard(self)


@dataclass
class _Task:
    """What is known of one piece of work: when it began, when a line was last shown, and the first count of it."""

    started: float
    shown: float
    first: int
    lines: int = 0
    bar: TaskID | None = None


def _pause(seconds: float) -> float:
    # The longer it takes, the longer the pauses: ten minutes of work are fifty lines of a log.
    return min(MAX_PAUSE_S, max(MIN_PAUSE_S, seconds / 10))


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
