"""How long work is shown: bars on a terminal, a line now and then anywhere else.

Owns the rendering of `bundles.progress.Progress`. May be called from several threads. Work that ends within a moment
shows nothing when there is no terminal, so that a log holds only what took time.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from appliance.cli.console.stream import Stream
from bundles.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY_S = 3.0
LINE_AT_LEAST_EVERY_S = 15.0
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class ProgressView:
    """A callback for `bundles.progress` that shows what it is told."""

    _open: ClassVar[weakref.WeakSet[ProgressView]] = weakref.WeakSet()

    def __init__(self, stream: Stream, clock: object = None) -> None:
        self._stream = stream
        self._now = clock if callable(clock) else time.monotonic
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
                now = self._now()
                task = self._tasks[event.task] = _Task(started=now, told=now, first=event.done)
            if self._stream.is_terminal:
                self._draw(task, event)
            else:
                self._tell(task, event)
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
            self._bars = _bars(self._stream)
            self._bars.start()
            ProgressView._open.add(self)
        if task.bar is None:
            task.bar = self._bars.add_task(_plain(event.task), total=event.total or None, figures="")
        figures = _figures(event, task.first, self._now() - task.started)
        self._bars.update(task.bar, completed=event.done, total=event.total or None, figures=figures)

    def _tell(self, task: _Task, event: Progress) -> None:
        now = self._now()
        is_last = bool(event.total) and event.done >= event.total and task.lines > 0
        # Seldomer the longer it takes: ten minutes of work are fifty lines of a log.
        pause = min(LINE_AT_LEAST_EVERY_S, max(LINE_EVERY_S, (now - task.started) / 10))
        if not is_last and now - task.told < pause:
            return
        task.told = now
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
    started: float
    told: float
    first: int
    lines: int = 0
    bar: TaskID | None = None


def _bars(stream: Stream) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    class OnStream(Console):
        def on_broken_pipe(self) -> None:
            # The front door decides what a reader that went away means; rich would exit with 1.
            raise BrokenPipeError

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        console=OnStream(file=stream.file, markup=False, highlight=False, emoji=False, soft_wrap=True),
    )


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _figures(event: Progress, first: int, seconds: float) -> str:
    """Done of total, rate and time left; what was there before this run does not count as speed."""
    done, total = event.done, event.total
    parts = [f"{_amount(done, event.unit)} of {_amount(total, event.unit)}" if total else _amount(done, event.unit)]
    rate = (done - first) / seconds if seconds > 0 else 0.0
    if rate > 0 and event.unit == "bytes":
        parts.append(f"{_amount(int(rate), 'bytes')}/s")
    if rate > 0 and total > done:
        parts.append(f"{duration((total - done) / rate)} left")
    return ", ".join(parts)


def _amount(count: int, unit: str) -> str:
    if unit != "bytes":
        return f"{count}"
    for size, name in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Spell a time for people: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
