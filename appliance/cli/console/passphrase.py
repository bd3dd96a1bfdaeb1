"""Secrets that a command needs: typed by a person, or read from a descriptor; never an option's value or a variable."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from signing.errors import UsageError

MAX_SECRET_BYTES = 4096


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
            line = file.read(MAX_SECRET_BYTES).partition(b"\n")[0]
        return line.decode("utf-8").removesuffix("\r")
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            "key.passphrase-fd",
            f"--passphrase-fd {descriptor}",
            expected="an open descriptor whose first line is the passphrase",
            found="none",
            hint=f"add {descriptor}<FILE at the end of the command",
        ) from None
