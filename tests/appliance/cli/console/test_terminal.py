"""What people see: nothing from outside moves the cursor, nothing is cut, an error names the next step."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from itertools import pairwise

import pytest

from appliance.cli.console.figures import format_duration, format_memory
from appliance.cli.console.progress import MIN_PAUSE_S, ProgressView
from appliance.cli.console.stream import STYLES, Stream, Style
from appliance.cli.console.terminal import Terminal
from bundles.progress import Progress
from bundles.report import escape, format_size
from signing.errors import DamagedError, NotTrustedError, worst
from tests.appliance.pseudo_terminal import read_all

Streams = tuple[Terminal, io.StringIO, io.StringIO]


@pytest.fixture
def streams() -> Streams:
    out, talk = io.StringIO(), io.StringIO()
    return Terminal(out, talk), out, talk


def test_answers_go_to_standard_output_and_talk_to_standard_error(streams: Streams) -> None:
    terminal, out, talk = streams
    terminal.answer("the answer")
    terminal.message("the talk")
    assert out.getvalue() == "the answer\n"
    assert talk.getvalue() == "the talk\n"


def test_names_in_square_brackets_are_printed_whole(streams: Streams) -> None:
    terminal, out, _ = streams
    terminal.answer("model [q4_k_m].gguf [/red] :smile:")
    assert out.getvalue() == "model [q4_k_m].gguf [/red] :smile:\n"


def test_a_digest_is_never_wrapped_or_cut_on_a_narrow_terminal(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal, out, _ = streams
    terminal.table(("file", "sha256"), [("models/a.gguf", "f" * 64), ("b", "0" * 64)])
    lines = out.getvalue().splitlines()
    assert lines == [
        "file           sha256",
        "models/a.gguf  " + "f" * 64,
        "b              " + "0" * 64,
    ]


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2Jcleared", "\\x1b[2Jcleared"),
        ("a\rb", "a\\rb"),
        ("a\nb", "a\\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj\u202egguf", "gpj\\u202egguf"),
        ("line\u2028line", "line\\u2028line"),
        ("broken \udcff name", "broken \\udcff name"),
        ("Zürich 東京 😀", "Zürich 東京 😀"),
    ],
)
def test_control_characters_from_outside_are_shown_escaped(hostile: str, shown: str) -> None:
    assert escape(hostile) == shown


def test_an_error_shows_what_was_expected_and_found_and_the_next_step(streams: Streams) -> None:
    terminal, out, talk = streams
    terminal.error(
        DamagedError(
            "contents.file-changed", "models/a.gguf", expected="sha256 aa", found="sha256 bb", hint="copy again"
        )
    )
    assert out.getvalue() == ""
    assert talk.getvalue().splitlines() == [
        "error: models/a.gguf: file changed (contents.file-changed)",
        "  expected sha256 aa",
        "  found sha256 bb",
        "hint: copy again",
    ]


def test_all_errors_of_one_check_are_shown_and_a_common_hint_once(streams: Streams) -> None:
    terminal, _, talk = streams
    first = DamagedError("contents.file-changed", "a", hint="copy again")
    second = NotTrustedError("stick.unknown", "b\x1b[1m", hint="ask a key holder")
    third = DamagedError("contents.file-changed", "c", hint="copy again")
    terminal.error(worst([first, second, third]))
    assert talk.getvalue().splitlines() == [
        "error: b\\x1b[1m: unknown (stick.unknown)",
        "error: a: file changed (contents.file-changed)",
        "error: c: file changed (contents.file-changed)",
        "hint: ask a key holder",
        "hint: copy again",
    ]


def test_json_answers_are_ascii_and_parse_back(streams: Streams) -> None:
    terminal, out, _ = streams
    terminal.answer_json({"name": "é\u202e[red]", "n": 1})
    assert out.getvalue().isascii()
    assert json.loads(out.getvalue()) == {"name": "é\u202e[red]", "n": 1}


class Clock:
    """Time that passes only when a test adds seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def view_into(talk: io.StringIO, clock: Clock) -> ProgressView:
    return ProgressView(Stream(talk, stderr=True), clock)


def test_without_a_terminal_long_work_prints_a_line_every_few_seconds() -> None:
    talk, clock = io.StringIO(), Clock()
    show = view_into(talk, clock)
    size = 100_000_000
    for percent in range(0, 101, 10):
        show(Progress("copying a", size * percent // 100, size))
        clock.seconds += MIN_PAUSE_S / 2
    lines = talk.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert lines[0].startswith("copying a: 20.0 MB of 100.0 MB, ")
    assert "/s, " in lines[0]
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("copying a: 100.0 MB of 100.0 MB")


def test_a_log_of_ten_minutes_of_work_is_not_flooded_and_never_silent_for_long() -> None:
    talk, clock = io.StringIO(), Clock()
    show = view_into(talk, clock)
    printed_at = []
    for second in range(600):
        clock.seconds = float(second)
        before = talk.tell()
        show(Progress("compiling", second, 600, unit="steps"))
        if talk.tell() > before:
            printed_at.append(second)
    assert 40 <= len(printed_at) <= 60
    assert max(after - before for before, after in pairwise(printed_at)) <= 16


def test_without_a_terminal_short_work_prints_nothing() -> None:
    talk, clock = io.StringIO(), Clock()
    show = view_into(talk, clock)
    for done in range(11):
        show(Progress("hashing", done, 10, unit="steps"))
    assert talk.getvalue() == ""


def test_resumed_work_does_not_count_earlier_bytes_as_speed() -> None:
    talk, clock = io.StringIO(), Clock()
    show = view_into(talk, clock)
    show(Progress("copying", 90_000_000, 100_000_000))
    clock.seconds = 10.0
    show(Progress("copying", 95_000_000, 100_000_000))
    assert "500.0 kB/s, 10 s left" in talk.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (4, "4 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_formatted_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (999_950, "1.0 MB"),
        (150_732_451, "150.7 MB"),
        (5 << 30, "5.4 GB"),
    ],
)
def test_sizes_are_formatted_in_decimal_units(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 MiB"), (1, "1 MiB"), (3 << 20, "3 MiB"), ((3 << 20) + 1, "4 MiB")])
def test_memory_is_formatted_in_whole_mebibytes_rounded_up(size: int, text: str) -> None:
    assert format_memory(size) == text


def on_a_terminal(code: str, environment: dict[str, str]) -> str:
    """Run Python code with a pseudo-terminal as its standard error; return what stood there."""
    leader, follower = pty.openpty()
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**base, "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(follower)
    shown = read_all(leader)
    assert child.wait(60) == 0
    return shown.decode()


BARS = """
from appliance.cli.console.stream import STYLES, Stream, Style
from appliance.cli.console.terminal import Terminal
from bundles.progress import Progress
with Terminal().progress() as show:
    for done in range(0, 5):
        show(Progress("copying [x]", done * 1_000_000, 4_000_000))
"""
WARNING = "from appliance.cli.console.terminal import Terminal; Terminal().development()"


def test_on_a_terminal_work_is_a_bar_with_its_figures() -> None:
    shown = on_a_terminal(BARS, {})
    assert "copying [x]" in shown
    assert "4.0 MB of 4.0 MB" in shown
    assert "━" in shown


def test_a_development_root_is_red_on_a_terminal() -> None:
    assert "\x1b[1;31mDEVELOPMENT TRUST ROOT" in on_a_terminal(WARNING, {})


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_drawn_on_a_terminal(style: Style) -> None:
    code = f"from appliance.cli.console.terminal import Terminal; Terminal().message('text', style={style!r})"
    assert f"{STYLES[style]}text\x1b[0m" in on_a_terminal(code, {})


def test_no_color_is_honoured() -> None:
    shown = on_a_terminal(WARNING, {"NO_COLOR": "1"})
    assert "DEVELOPMENT TRUST ROOT" in shown
    assert "31m" not in shown
