"""`docs/commands.md`: every command with its options, from the commands themselves."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from appliance.cli.command_table import COMMANDS
from appliance.cli.main import appliance

ARCHITECTURE = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
INTRODUCTION = """# Commands

For people who type a command, or write a program that does. `appliance COMMAND --help` shows the same text.

Answers go to standard output, everything else to standard error. `--json` answers for programs, on failure too.
`--prefix DIR` keeps a whole host tree in one folder, without root and systemd; without it the machine itself is meant.
Every command may be interrupted, and continues when it is run again.

"""
_NO_BREAK = "\0"
EXIT_CODES = re.compile(r"^\| exit code \|.*?(?=^$)", re.MULTILINE | re.DOTALL)


def page() -> str:
    """The text, from the table of commands and the help of each; the exit codes are those of docs/architecture.md."""
    return INTRODUCTION + "".join(_parts()) + "## Exit codes\n\n" + exit_codes()


def exit_codes() -> str:
    """The table of exit codes, from the page that decides them."""
    found = EXIT_CODES.search(ARCHITECTURE.read_text("utf-8"))
    assert found, "docs/architecture.md has no table of exit codes"
    return found[0]


def _parts() -> Iterator[str]:
    top = click.Context(appliance, info_name="appliance")
    for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
        names = [name for name, entry in COMMANDS.items() if entry.group == group]
        yield f"## {group}\n\n| command | what it does |\n|---|---|\n"
        for name in names:
            yield f"| [`appliance {name}`](#appliance-{name}) | {COMMANDS[name].help} |\n"
        yield "\n"
        for name in names:
            command = appliance.get_command(top, name)
            assert command is not None
            yield from _command(command, click.Context(command, info_name=name, parent=top), "###")


def _command(command: click.Command, context: click.Context, mark: str) -> Iterator[str]:
    text, _, example = (command.help or "").partition("\b\n")
    yield f"{mark} `{context.command_path}`\n\n{_filled(text)}\n\n"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(inner, click.Context(inner, info_name=name, parent=context), f"{mark}#")
        return
    yield f"```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n\n"
    options = [option for option in command.params if isinstance(option, click.Option)]
    if records := [record for option in options if (record := option.get_help_record(context))]:
        yield "| option | meaning |\n|---|---|\n"
        yield "".join(f"| `{_cell(option)}` | {_cell(meaning)} |\n" for option, meaning in records)
        yield "\n"
    yield f"Example:\n\n```\n{textwrap.dedent(example.partition('Example:')[2]).strip()}\n```\n\n"


def _filled(text: str) -> str:
    """Paragraphs in lines of at most 120 characters; what stands in backquotes stays in one line."""
    blocks = (" ".join(block.split()) for block in text.strip().split("\n\n"))
    joined = (re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", _NO_BREAK), block) for block in blocks)
    lines = (textwrap.fill(block, 120, break_long_words=False, break_on_hyphens=False) for block in joined)
    return "\n\n".join(lines).replace(_NO_BREAK, " ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
