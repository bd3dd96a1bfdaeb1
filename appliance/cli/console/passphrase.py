"""Secrets that a command needs: typed by a person, or read from a descriptor; never an option's value or a variable."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from signing.errors import UsageError

MAX_SECRET_BYTES = 4096
_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def passphrase_source(descriptor: int | None, *, confirm: bool = False) -> Callable[[str], str]:
    """Return a function that gets the secret for what its argument names.

    Args:
        descriptor: of `--passphrase-fd`: its first line is the secret; None asks the person.
        confirm: whether a typed secret is asked for twice.
    """
    if descriptor is None:
        return lambda what: _type_in(what, confirm)
    # Read once: a descriptor gives its first line one time only.
    held: list[str] = []

    def read(_what: str) -> str:
        if not held:
            held.append(_read_first_line(descriptor))
        return held[0]

    return read


def _type_in(what: str, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "key.no-terminal",
            what,
            expected="somebody at a terminal, or --passphrase-fd",
            found="neither",
            hint="run it in a terminal, or add: --passphrase-fd 3 3<FILE",
        )
    typed: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed


def _read_first_line(descriptor: int) -> str:
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError:
        raise _unusable(descriptor, "no open descriptor", f"add {descriptor}<FILE at the end of the command") from None
    line, newline, _ = data.partition(b"\n")
    line = line.removesuffix(b"\r") if newline else line
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise _unusable(
                descriptor, f"a byte order mark of {name} at the start", "save the file as UTF-8 without it"
            )
    if not newline and len(data) > MAX_SECRET_BYTES:
        raise _unusable(descriptor, f"more than {MAX_SECRET_BYTES} bytes without a newline", "name the right file")
    if not line:
        raise _unusable(descriptor, "an empty first line", "write the passphrase into the first line")
    # No byte of a secret is shown.
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        found = "bytes that are no UTF-8, as in Latin-1"
        raise _unusable(descriptor, found, "save the file as UTF-8: iconv -f latin1 -t utf-8 OLD >NEW") from None
    if "\0" in text:
        raise _unusable(descriptor, "a zero byte, as in UTF-16", "save the file as UTF-8")
    return text


def _unusable(descriptor: int, found: str, hint: str) -> UsageError:
    return UsageError(
        "key.passphrase-fd",
        f"--passphrase-fd {descriptor}",
        expected="an open descriptor whose first line is the passphrase, in UTF-8",
        found=found,
        hint=hint,
    )
