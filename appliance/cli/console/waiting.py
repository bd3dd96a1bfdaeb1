"""How commands wait for the next stick: the options, and who is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import click

from appliance.cli.console.terminal import Terminal
from bundles.stick.media_set import Waiting

Command = TypeVar("Command", bound=Callable[..., object])


def wait_option(function: Command) -> Command:
    """Add `--wait` and `--no-wait`; the parameter `wait` is a `bool`, or None where neither was given."""
    return click.option(
        "--wait/--no-wait",
        default=None,
        help="Wait for sticks that are not here, and for folders that are filling still, such as the spool of a data "
        "diode. On a terminal it waits for the next stick by itself; --no-wait ends with exit code 5.",
    )(function)


def select_option(function: Command) -> Command:
    """Add `--select NAME-VERSION`; the parameter `select` is a `str`, empty where it was not given."""
    return click.option(
        "--select",
        metavar="NAME-VERSION",
        default="",
        help="Which bundle is meant, where several lie on the media: for example smollm2-1.0.0.",
    )(function)


def waiting_of(terminal: Terminal, wait: bool | None) -> Waiting | None:
    """How to wait, by the option and by whether a person watches.

    Args:
        terminal: gets a line for each medium that is missing.
        wait: of `wait_option`.

    Returns:
        None where nobody waits.
    """
    if wait is None and not is_watched():
        return None
    return None if wait is False else Waiting(terminal.message, is_filling=wait is True)


def is_watched() -> bool:
    """Whether a person can see a message and act: both input and messages are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
