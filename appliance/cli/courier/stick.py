"""`appliance stick`: put bundles on media that are carried by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from appliance.cli.console.options import json_option, named_workspace_option, pass_terminal, trust_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import is_watched
from appliance.cli.courier.stick_answer import answer, describe, raise_unwritten
from appliance.cli.courier.stick_check import check
from appliance.cli.courier.stick_writing import (
    ask_for_sticks,
    confirm_removal,
    look_at_other_side,
    open_sources,
    parity_place,
    wanted_digests,
)
from bundles.stick.card import MAX_STICKS
from bundles.stick.writing.writer import WriteChoice, write_sticks
from signing.errors import UsageError


@click.group("stick", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Write bundles to sticks, and check what sticks hold.

    \b
    Example:
      appliance stick write dist/smollm2-1.0.0 /media/stick --workspace ~/appliance-workspace
    """


command.add_command(check)


@command.command("write")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("destination", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--also",
    metavar="BUNDLE",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Write this bundle, too, to the same sticks; may be given several times.",
)
@click.option(
    "--since",
    metavar="BUNDLE|RECEIPT",
    type=click.Path(exists=True, path_type=Path),
    help="Leave out the blobs of this bundle, or what the host that wrote this receipt holds.",
)
@click.option(
    "--only",
    metavar="RANGES",
    multiple=True,
    help="Write just these blobs, as the other side names them: '223,448-450 b318'.",
)
@click.option(
    "--number",
    metavar="N",
    type=click.IntRange(1, MAX_STICKS),
    default=1,
    help="The number of the first of these sticks, where earlier calls have written others of the same set.",
)
@click.option(
    "--parity",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write one stick more, here: any one of the others can then be lost.",
)
@click.option("--replace", is_flag=True, help="Remove blobs that none of these bundles needs; they are listed first.")
@click.option("--yes", is_flag=True, help="Do so without asking.")
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Ask for further sticks, and wait for them; at a terminal this is the default.",
)
@click.option("--keep-mounted", is_flag=True, help="Do not unmount a stick at the end.")
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def write(
    terminal: Terminal,
    bundle: Path,
    destination: Sequence[Path],
    also: Sequence[Path],
    since: Path | None,
    only: Sequence[str],
    number: int,
    parity: Path | None,
    replace: bool,
    yes: bool,
    wait: bool | None,
    keep_mounted: bool,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Write BUNDLE to the sticks at each DESTINATION, then read every byte back.

    The bundle's signatures are verified first. Only what the sticks lack is written, so an interrupted write continues
    where it stopped. What does not fit on the first stick goes to the next one. Sticks of different disks are written
    at the same time; where one fails, the others are finished, and the hint names the command for that one. Root ends
    with the sticks unmounted: then they are safe to pull.

    Exit 5: the sticks are full, and the answer names what has yet to be written.

    \b
    Example:
      appliance stick write dist/smollm2-1.0.0 /media/stick --workspace ~/appliance-workspace
      appliance stick write dist/smollm2-1.1.0 /media/a /media/b --parity /media/c
      appliance stick write dist/smollm2-1.1.0 /media/stick --since receipt.json --workspace ~/appliance-workspace
      appliance stick write dist/smollm2-1.1.0 /media/stick --only '223,448-450 b318'
    """
    places = (*destination, *((parity,) if parity else ()))
    _refuse_workspace(places)
    media = open_sources(terminal, (bundle, *also), trust, workspace)
    if media.bundles[0].evidence.is_development:
        terminal.development()
    held = look_at_other_side(terminal, since, trust, workspace)
    further = ask_for_sticks(terminal, places) if (is_watched() if wait is None else wait) else None
    choice = WriteChoice(
        wanted=wanted_digests(media, held, only),
        may_remove=confirm_removal(terminal, is_agreed=yes) if replace else None,
        keep_mounted=keep_mounted,
        next_sticks=further,
        parity_stick=parity_place(parity, destination, further) if parity else None,
        announce=terminal.message,
        reads=held.reads if held else None,
        before=number - 1,
    )
    with terminal.progress() as on_progress:
        written = write_sticks(media, destination, choice, on_progress)
    for path in dict.fromkeys(one.path for stick in written.sticks for one in stick.beside.attested if not one.counts):
        terminal.message(f"notice: {path} does not count: its key was rotated out")
    if as_json:
        terminal.answer_json(describe(media, written))
    else:
        answer(terminal, media, written, number - 1)
    raise_unwritten(media, written, number - 1, has_parity=parity is not None)


def _refuse_workspace(places: Sequence[Path]) -> None:
    # A courier must never carry the private keys.
    destination = next((place for place in places if all((place / name).is_dir() for name in ("keys", "trust"))), None)
    if destination is not None:
        raise UsageError(
            "stick.is-workspace",
            str(destination),
            expected="the folder of a stick",
            found="a workspace, which holds private keys",
            hint="give the folder where the stick is mounted",
        )
