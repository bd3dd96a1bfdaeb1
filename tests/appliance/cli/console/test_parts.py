"""Work on several things at the same time is shown as one line for each, or as one line about the slowest."""

from __future__ import annotations

import io

import pytest

from appliance.cli.console.terminal import Terminal
from bundles.progress import Progress

SIZE = 3_000_000_000
ONE, TWO = "stick 1, a", "stick 2, b"


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TerminalText(io.StringIO):
    """What a terminal gets."""

    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, *events: tuple[float, Progress]) -> str:
    """Show events at their times, and return what was printed."""
    clock = Clock()
    view = Terminal(io.StringIO(), stream).progress()
    view._clock = clock
    with view:
        for now, event in events:
            clock.now = now
            view(event)
    return stream.getvalue()


def write(part: str, done: int, task: str = "writing") -> Progress:
    return Progress(task, done, SIZE, part=part)


def end(part: str, words: str, *, is_done: bool = True) -> Progress:
    return Progress(words, int(is_done), 1, "steps", part, is_end=True)


def test_without_a_terminal_the_slowest_has_a_line_every_few_seconds_and_each_end_has_one() -> None:
    text = show(
        io.StringIO(),
        (0, Progress("waiting", 0, 1, "steps", ONE)),
        (0, Progress("waiting", 0, 1, "steps", TWO)),
        (0, write(ONE, 0)),
        (0, write(TWO, 0)),
        (10, write(ONE, 300_000_000)),
        (10, write(TWO, 100_000_000)),
        (20, write(TWO, 200_000_000)),
        (150, write(ONE, SIZE)),
        (150, write(ONE, 0, "reading back")),
        (160, write(ONE, SIZE // 2, "reading back")),
        (170, end(ONE, "safe to pull: unmounted")),
        (300, end(TWO, "failed: disk.full", is_done=False)),
    )
    assert text.splitlines() == [
        f"0 of 2 done, slowest {TWO}: writing, 0 bytes of 3.0 GB",
        f"0 of 2 done, slowest {TWO}: writing, 200.0 MB of 3.0 GB, 10.0 MB/s, 4 min 40 s left",
        f"0 of 2 done, slowest {TWO}: writing, 200.0 MB of 3.0 GB, 1.3 MB/s, 35 min 0 s left",
        f"{ONE}: safe to pull: unmounted",
        f"{TWO}: failed: disk.full",
    ]


def test_what_ends_within_a_moment_shows_nothing_without_a_terminal() -> None:
    events = [(0.1, write(ONE, 0)), (0.2, write(ONE, SIZE)), (0.3, end(ONE, "safe to pull: unmounted"))]
    assert show(io.StringIO(), *events) == ""


def test_a_part_that_waits_is_not_the_slowest() -> None:
    text = show(
        io.StringIO(),
        (0, Progress("waiting", 0, 1, "steps", TWO)),
        (9, Progress("waiting", 0, 1, "steps", TWO)),
        (9, write(ONE, SIZE // 2)),
    )
    assert text == f"0 of 2 done, slowest {ONE}: writing, 1.5 GB of 3.0 GB\n"


@pytest.mark.parametrize("name", [ONE, "stick \x1b[2J, \r[red]"])
def test_on_a_terminal_each_part_keeps_its_line_to_the_end(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    text = show(
        TerminalText(),
        (0, write(name, 0)),
        (0, write(TWO, 0)),
        (10, write(name, SIZE)),
        (10, write(name, 0, "reading back")),
        (20, end(name, "safe to pull: unmounted")),
        (30, write(TWO, SIZE // 2)),
        (30, end(TWO, "failed: disk.full", is_done=False)),
    )
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    last = text.rpartition("\x1b[2K")[2].splitlines()[:2]
    assert [line.startswith(f"{one} ") for line, one in zip(last, (plain, TWO), strict=True)] == [True, True]
    assert "safe to pull: unmounted" in last[0]
    assert "failed: disk.full" in last[1]
    assert "\x1b[2J" not in text
