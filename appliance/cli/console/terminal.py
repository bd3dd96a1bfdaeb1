"""What people see of a command: its answer on standard output, its messages on standard error.

Owns the form of both. Messages are headings, progress, warnings and errors.

Rules:
- text from outside is never trusted: what a reader would not see is shown escaped, and nothing is read as markup;
- an answer or message is one line: a line break in it is from outside, and is shown escaped, too;
- an error is made into text here, once: what, expected, found, hint;
- without a terminal there are no bars, colours or carriage returns, only lines;
- `NO_COLOR` is honoured;
- `rich` is loaded when it draws bars or measures columns: most commands print a few lines only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

from appliance.cli.console.headings import HEADINGS
from appliance.cli.console.progress import ProgressView
from appliance.cli.console.stream import Stream, Style
from bundles.report import DEVELOPMENT_ROOT, MAX_FAULTS, escape, fault_fields, fault_lines, hint_lines
from signing.errors import ApplianceError


class Terminal:
    """Standard output for answers, standard error for messages.

    Args:
        out: where answers go; None is standard output, whichever file that is at the moment of writing.
        messages: where everything else goes; None is standard error.
    """

    def __init__(self, out: TextIO | None = None, messages: TextIO | None = None) -> None:
        self._out = Stream(out, stderr=False)
        self._messages = Stream(messages, stderr=True)
        self._has_answered = False
        self.answers_json = False
        """Whether a program reads the answer."""

    def message(self, text: str = "", style: Style | None = None) -> None:
        """Print a line that is not the answer."""
        ProgressView.close_all()
        self._messages.print(escape(text, keep="\t"), style=style)

    def answer(self, text: str) -> None:
        """Print the answer, or a line of it."""
        ProgressView.close_all()
        self._has_answered = True
        self._out.print(escape(text, keep="\t"))

    def page(self, text: str) -> None:
        """Print a long answer of many lines: in a pager where a person watches, whole otherwise."""
        lines = text.split("\n")
        if not self._out.is_terminal:
            for line in lines:
                self.answer(line)
            return
        ProgressView.close_all()
        self._has_answered = True
        click.echo_via_pager("\n".join(escape(line, keep="\t") for line in lines))

    def answer_json(self, value: Any, *, one_line: bool = False) -> None:
        """Print the answer as one JSON value, in ASCII.

        Args:
            value: what `json` can write.
            one_line: for programs that read line by line.
        """
        ProgressView.close_all()
        self._has_answered = True
        self._out.print(json.dumps(value, indent=None if one_line else 2))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print an answer in columns. Nothing is cut: a digest stays whole on a narrow terminal."""
        from rich.cells import cell_len  # loaded with the first table: `appliance verify` starts without rich

        ProgressView.close_all()
        self._has_answered = True
        cells = [[escape(str(cell)) for cell in row] for row in [head, *rows]]
        widths = [max(cell_len(row[at]) for row in cells) for at in range(len(head))]
        for number, row in enumerate(cells):
            line = "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
            self._out.print(line.rstrip(), style="bold" if number == 0 else None)

    def step(self, title: str) -> None:
        """Begin a new part of a longer piece of work."""
        self.message()
        self.message(title, style="bold")

    def development(self) -> None:
        """Warn that the trust root behind the answer is a development root."""
        self.message(f"DEVELOPMENT TRUST ROOT: {DEVELOPMENT_ROOT}", style="bold red")

    def progress(self) -> ProgressView:
        """Return a callback for `bundles.progress`; as a context manager it ends its bars."""
        return ProgressView(self._messages)

    def error(self, error: ApplianceError) -> None:
        """Show an error: what, then expected and found, then the next step, then the other errors of the same check.

        A program that reads the answer gets it as `exit_code` and `errors`, unless it was answered already.
        """
        self._fault(error)
        for other in error.others[:MAX_FAULTS]:
            self._fault(other)
        if len(error.others) > MAX_FAULTS:
            self.message(f"and {len(error.others) - MAX_FAULTS} more like these")
        for line in hint_lines(error):
            self.message(line)
        self._answer_failure(error.exit_code, [fault_fields(one) for one in (error, *error.others)])

    def failure(self, what: str, hint: str = "", exit_code: int = 1) -> None:
        """Show a failure that is not of the project's tree of errors, such as a wrong option, as `error` does."""
        self._error_line(what)
        if hint:
            self.message(f"hint: {escape(hint)}")
        self._answer_failure(
            exit_code,
            [{"code": "", "subject": "", "expected": "", "found": what, "hint": hint, "exit_code": exit_code}],
        )

    def _answer_failure(self, exit_code: int, errors: list[dict[str, object]]) -> None:
        if self.answers_json and not self._has_answered:
            self.answer_json({"exit_code": exit_code, "errors": errors})

    def _fault(self, error: ApplianceError) -> None:
        first, *rest = fault_lines(error, HEADINGS.get(error.code, ""))
        self._error_line(first)
        for line in rest:
            self.message(line)

    def _error_line(self, text: str) -> None:
        ProgressView.close_all()
        self._messages.print("error: ", style="bold red", end="")
        self._messages.print(escape(text))
