"""Memory, durations and progress as people read them. Sizes of files are `bundles.report.format_size`."""

from __future__ import annotations

from bundles.progress import Progress
from bundles.report import format_size

MIB = 1 << 20


def format_memory(size_bytes: int) -> str:
    """An amount of memory in whole MiB, rounded up: fine enough to add and compare the parts of a need."""
    return f"{-(-size_bytes // MIB)} MiB"


def format_duration(seconds: float) -> str:
    """A time span: `0.4 s`, `59 s`, `3 min 20 s`, `2 h 5 min`. Tenths of a second are shown below ten seconds only."""
    whole = round(seconds)
    if whole < 10:
        return f"{round(seconds, 1):g} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress_figures(event: Progress, first: int, seconds: float) -> str:
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
