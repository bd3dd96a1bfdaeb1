"""Options that several commands share, so that one name means one thing everywhere.

Each decorator adds one parameter to the command's function, under the name that its docstring gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from appliance.cli.console.terminal import Terminal

Command = TypeVar("Command", bound=Callable[..., object])

pass_terminal = click.make_pass_decorator(Terminal, ensure=True)
"""Gives the function its `Terminal` as the first argument."""


def prefix_option(function: Command) -> Command:
    """Add `--prefix DIR`; the parameter `prefix` is a `Path`, or None for the whole machine."""
    return click.option(
        "--prefix",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Keep the whole host tree (/opt, /etc, /var) under DIR: no root and no systemd needed.",
    )(function)


def workspace_option(function: Command) -> Command:
    """Add `--workspace DIR`; the parameter `workspace` is a `Path`. For commands that write into a workspace."""
    return click.option(
        "--workspace",
        metavar="DIR",
        default=".",
        show_default=True,
        envvar="APPLIANCE_WORKSPACE",
        show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="The publisher's workspace: trust/, keys/ and dist/.",
    )(function)


def named_workspace_option(function: Command) -> Command:
    """Add `--workspace DIR` without a default; the parameter `workspace` is a `Path` or None.

    For commands that verify: the current folder may lie on a stick, so it never names a trust root by itself.
    """
    return click.option(
        "--workspace",
        metavar="DIR",
        envvar="APPLIANCE_WORKSPACE",
        show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Trust the root of this publisher's workspace, where the host has pinned none.",
    )(function)


def trust_option(function: Command) -> Command:
    """Add `--trust FILE`; the parameter `trust` is a `Path`, or None for the root of the host or the workspace."""
    return click.option(
        "--trust",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The trust root to check against; never one that came with what is checked.",
    )(function)


def json_option(function: Command) -> Command:
    """Add `--json`; the parameter `as_json` is a `bool`, and errors are answered in JSON, too."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,  # noted before another option is found wrong
        callback=_note_json,
        help="Answer in JSON, for programs, on failure too.",
    )(function)


def _note_json(context: click.Context, _option: click.Parameter, value: bool) -> bool:
    context.ensure_object(Terminal).answers_json = value
    return value


def converter_option(function: Command) -> Command:
    """Add `--converter PYTHON`; the parameter `converter` is a `Path`, or None."""
    return click.option(
        "--converter",
        metavar="PYTHON",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A Python that has numpy, torch and transformers, for models that the recipe converts.",
    )(function)


def passphrase_option(function: Command) -> Command:
    """Add `--passphrase-fd N`; the parameter `passphrase_fd` is an `int`, or None to ask the person."""
    return click.option(
        "--passphrase-fd",
        metavar="N",
        type=click.IntRange(0),
        help="Read the passphrase or PIN from this file descriptor (its first line) instead of asking.",
    )(function)
