"""`appliance` as a page's place runs it: the program itself, with a small world around it.

- `lock` finds a package index with one package that the program needs;
- `build` finds its sources, of a few kilobytes, instead of fetching and compiling them;
- a command of a host means the host in the place (`PAGE_HOST`), where the page means the whole machine.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import click

from appliance.cli.main import appliance, main

_CHOOSES_ROOT = {"--prefix", "--trust", "--workspace"}


def host_option(arguments: list[str], host: str) -> list[str]:
    """`--prefix HOST` for a command line that means the whole machine, else nothing."""
    command: click.Command = appliance
    for word in arguments:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            return []
        command = found
    has_prefix = any("--prefix" in parameter.opts for parameter in command.params)
    return ["--prefix", host] if has_prefix and not _CHOOSES_ROOT & {*arguments} else []


def run_in_place() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    sys.argv += host_option(arguments, os.environ["PAGE_HOST"])
    with ExitStack() as stack:
        if arguments[:1] == ["lock"]:
            from appliance.builder.resolve import resolver

            stack.enter_context(mock.patch.object(resolver, "host_requires", return_value=("alpha",)))
        elif arguments[:1] == ["build"]:
            from tests.appliance.tiny import TinyBuild

            stack.enter_context(TinyBuild(Path.cwd()).staged())
        main()


if __name__ == "__main__":
    run_in_place()
