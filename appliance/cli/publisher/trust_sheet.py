"""`appliance trust sheet`: print what the operator of a bare host has on paper."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.options import pass_terminal, workspace_option
from appliance.cli.console.terminal import Terminal
from appliance.keys.tuf_repository import published
from appliance.keys.workspace import open_workspace
from bundles.bare_host.boot_check import VERIFIER_FILE
from signing.errors import UsageError


@click.command("sheet")
@click.option(
    "--serial",
    metavar="N",
    type=click.IntRange(1, 999_999_999),
    help="The oldest BOOT that hosts may take; without it, the one that was signed last.",
)
@workspace_option
@pass_terminal
def sheet(terminal: Terminal, serial: int | None, workspace: Path) -> None:
    """Print the sheet with which a bare host checks a stick before anything from it runs.

    It is a shell script for a host that has no appliance yet. Keep it on paper or in your organisation's own documents,
    never on a stick: the stick is what it checks. Its second part is for hosts without python3; it may be left out
    elsewhere. Print a new one when the trust root changes, or when hosts must refuse an older verifier.

    \b
    Example:
      appliance trust sheet --workspace ~/appliance-workspace > sheet.sh
    """
    # `appliance trust pin` loads this module on hosts, which need nothing of the builder's part of the program.
    from appliance.builder.bare_host.boot_writer import newest, serial_of
    from appliance.builder.bare_host.sheet import python_part, render_sheet
    from appliance.builder.bare_host.verifier_format import copies_program

    opened = open_workspace(workspace)
    walked = published(opened).walked
    signed = newest(opened, walked.root_bytes)
    lowest = serial or serial_of(signed)
    if not lowest:
        raise UsageError(
            "boot.none-signed",
            str(workspace),
            expected="a BOOT that this root's keys have signed",
            found="none yet",
            hint="build a bundle first: appliance build RECIPE",
        )
    if walked.root.profile:
        terminal.development()
    pins = not signed or copies_program(signed[VERIFIER_FILE])
    if not pins:
        terminal.message(
            "warning: the verifier that root keys have signed only verifies: this sheet does not install from a stick. "
            "A newer one is signed with the next root: appliance trust rotate"
        )
    text = render_sheet(walked.root, lowest, pins=pins) + (python_part() if pins else "")
    for line in text.rstrip("\n").split("\n"):
        terminal.answer(line)
