"""How long work is shown: bars on a terminal, a line every few seconds anywhere else.

Owns the rendering of `bundles.progress.Progress`. May be called from several threads. Work that ends within a moment
shows nothing where there is no terminal, so that a log holds only what took time.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from appliance.cli.console.figures import format_duration, format_size
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
        self._bars: Bars | None = None

    @classmethod
    def close_all(cls) -> None:
        """End every bar on the screen, so that what is printed next stands below them."""
        for view in list(cls._open):
            view.close()

    def __call__(self, event: Progress) -> None:
        """Show one event."""
        with self._lock:
            task = self._tasks.get(event.task)
            if task is None:
                now = self._clock()
                task = self._tasks[event.task] = _Task(started=now, shown=now, first=event.done)
            if self._stream.is_terminal:
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
            self._stop_bars()

    def _draw(self, task: _Task, event: Progress) -> None:
        if self._bars is None:
            from appliance.cli.console.bars import progress_bars  # loaded with the first bar: it loads `rich`

            self._bars = progress_bars(self._stream)
            self._bars.start()
            ProgressView._open.add(self)
        if task.bar is None:
            task.bar = self._bars.add_task(_plain(event.task), total=event.total or None, figures="")
        figures = _figures(event, task.first, self._clock() - task.started)
        self._bars.update(task.bar, completed=event.done, total=event.total or None, figures=figures)

    def _print_line(self, task: _Task, event: Progress) -> None:
        now = self._clock()
        is_last = bool(event.total) and event.done >= event.total and task.lines > 0
        # The longer it takes, the longer the pauses: ten minutes of work are fifty lines of a log.
        pause = min(MAX_PAUSE_S, max(MIN_PAUSE_S, (now - task.started) / 10))
        if not is_last and now - task.shown < pause:
            return
        task.shown = now
        task.lines += 1
        self._stream.print(f"{_plain(event.task)}: {_figures(event, task.first, now - task.started)}")

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


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _figures(event: Progress, first: int, seconds: float) -> str:
    """Done of total, rate and time left; what was there before this run does not count as speed."""
    done, total = event.done, event.total
    parts = [f"{_amount(done, event.unit)} of {_amount(total, event.unit)}" if total else _amount(done, event.unit)]
    rate = (done - first) / seconds if seconds > 0 else 0.0
    if rate > 0 and event.unit == "bytes":
        parts.append(f"{format_size(int(rate))}/s")
    if rate > 0 and total > done:
        parts.append(f"{format_duration(round((total - done) / rate))} left")
    return ", ".join(parts)


def _amount(count: int, unit: str) -> str:
    return format_size(count) if unit == "bytes" else str(count)
