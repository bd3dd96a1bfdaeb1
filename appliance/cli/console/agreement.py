"""One question to the person at the terminal, before something that cannot be taken back."""

from __future__ import annotations

import sys

import click

from signing.errors import UsageError


def ask_person(code: str, subject: str, expected: str, question: str, *, ends: bool = True) -> bool:
    """Ask a question that a person must answer with yes.

    Args:
        code: of the error where nobody is at a terminal.
        subject: what the question is about, for that error.
        expected: who has to agree to what, for that error.
        question: as it is shown, without a mark for the answer.
        ends: whether a no ends the command.

    Returns:
        Whether the person agreed.

    Raises:
        UsageError: nobody is at a terminal.
        click.Abort: the person did not agree, and `ends` is set.
    """
    if not sys.stdin.isatty():
        raise UsageError(code, subject, expected=expected, found="no terminal")
    return click.confirm(question, abort=ends, err=True)
