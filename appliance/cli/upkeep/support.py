"""`appliance support`: one file about this host for the people who help, shown before it is written."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.agreement import ask_person
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.planner.host_card import read_card
from appliance.host.engine.state import EngineState
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.support.facts import gather_support
from appliance.host.maintenance.support.file import SupportFile, fact_lines, write_support
from appliance.host.maintenance.support.private_words import private_words
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release
from appliance.serve.supervisor.engine_states import read_engine_states
from bundles.medium import Medium
from signing.errors import UsageError

_COLUMN = 30


@click.command("support")
@click.argument("destination", metavar="DEST", required=False, type=click.Path(path_type=Path))
@click.option("--list", "is_list", is_flag=True, help="Print every fact that such a file may hold, and write nothing.")
@click.option(
    "--without", multiple=True, metavar="FACT", help="Leave this fact out, named by its path; may be given again."
)
@prefix_option
@click.option("--yes", is_flag=True, help="Write it without asking.")
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    destination: Path | None,
    is_list: bool,
    without: tuple[str, ...],
    prefix: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Write a file about this host to DEST, a folder or a file, for the people who help.

    Its whole content is shown first, then one question follows. It holds numbers, versions, digests, times and words of
    a fixed list. It has no name of a machine, a person, a model or a file, and no text of a log. Before it is written
    it is searched for the names and keys of this host, and for the words of /etc/appliance/private-words.

    Exit 4: one of them stands in it; nothing was written.

    \b
    Example:
      appliance support /media/stick
      appliance support --list
    """
    if is_list:
        for line in fact_lines():
            terminal.answer(line)
        return
    if destination is None:
        raise click.UsageError("Missing argument 'DEST'.", click.get_current_context())
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    path = _target(destination, now)
    made = write_support(gather_support(host, read_card(), now, _engine_states), private_words(host), without)
    _show(terminal, made)
    if not yes:
        ask_person(
            "support.unasked",
            str(path),
            "somebody at a terminal who agrees that this leaves the host, or --yes",
            f"write this to {path}?",
        )
    Medium(path.parent).write(path.name, made.data)
    if as_json:
        terminal.answer_json({"path": str(path), "size_bytes": len(made.data), "withheld": list(made.withheld)})
    else:
        terminal.answer(f"wrote {path}")


def _show(terminal: Terminal, made: SupportFile) -> None:
    for line in made.lines():
        label, _, text = line.partition("  ")
        for part in labelled(label, text, _COLUMN):
            terminal.message(part)
    if made.withheld:
        terminal.message(f"left out, since the value is not of the expected form: {', '.join(made.withheld)}")


def _engine_states(release: Release, services: tuple[UnitState, ...]) -> list[EngineState]:
    return list(read_engine_states(release, services).values())


def _target(destination: Path, now: datetime) -> Path:
    if destination.is_dir():
        return destination / f"support-{now:%Y%m%dT%H%M%SZ}.json"
    if destination.absolute().parent.is_dir():
        return destination.absolute()
    raise UsageError(
        "support.no-folder",
        str(destination),
        expected="a folder, or a file in a folder that exists",
        found="no such folder",
        hint="check the path, and that the stick is mounted",
    )
