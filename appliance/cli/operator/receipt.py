"""`appliance receipt`: a signed list of what a host holds, for the people who write sticks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.agreement import ask_person
from appliance.cli.console.options import json_option, pass_terminal, prefix_option, workspace_option
from appliance.cli.console.terminal import Terminal
from appliance.host.engine.state import SERVING
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.trust.root_pin import parse_fingerprint
from appliance.host.verification.receipt import prepare_receipt, sign_receipt
from appliance.keys.enrolled_hosts import accept_receipt
from appliance.keys.workspace import open_workspace
from appliance.serve.supervisor.engine_states import read_engine_states
from bundles.medium import Medium
from bundles.receipt import Receipt
from signing.errors import UsageError
from signing.strictjson import load


@click.group("receipt", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Write what this host holds, or read what a host wrote.

    A stick that is written with --since RECEIPT leaves out what that host holds.

    \b
    Example:
      appliance receipt write /media/stick
    """


@command.command("write")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@prefix_option
@click.option("--yes", is_flag=True, help="Write it without asking.")
@json_option
@pass_terminal
def write(terminal: Terminal, destination: Path, prefix: Path | None, yes: bool, as_json: bool) -> None:
    """Write a receipt of this host to DEST, a folder or a file.

    Everything that the receipt states is shown before it leaves: bundles by name and digest, versions, numbers and one
    time. It has no name of a machine or person and no text of the site. This host's key signs it.

    \b
    Example:
      appliance receipt write /media/stick
      appliance receipt write receipt.json --prefix /srv/appliance --yes
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    states = read_engine_states(open_current(host, now)).values()
    receipt = prepare_receipt(host, [state.level for state in states if state.status == SERVING], now)
    path = _target(destination, receipt)
    for line in _lines(receipt):
        terminal.message(line)
    if not yes:
        ask_person(
            "receipt.unasked",
            str(path),
            "somebody at a terminal who agrees that this leaves the host, or --yes",
            f"write this to {path}?",
        )
    Medium(path.parent).write(path.name, sign_receipt(host, receipt))
    if as_json:
        terminal.answer_json({"path": str(path), **_members(receipt)})
    else:
        terminal.answer(f"wrote {path}")


@command.command("read")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--fingerprint",
    metavar="SHA256",
    help="Enrol the host with this key, once: `appliance trust show` on that host. Never from the receipt itself.",
)
@workspace_option
@json_option
@pass_terminal
def read(terminal: Terminal, file: Path, fingerprint: str | None, workspace: Path, as_json: bool) -> None:
    """Check the receipt FILE of a host, remember it, and show what it states.

    The first receipt of a host needs the fingerprint of its key. Later ones do not. A receipt that is older than the
    last one of the same host is refused. So is one of a host whose counter or floors have gone back.

    Exit 0: that host wrote it. 4: from no enrolled host, changed, or old.

    \b
    Example:
      appliance receipt read /media/stick/receipt-3f09aa17c2d4-1.json --fingerprint 3f…e1
    """
    wanted = parse_fingerprint(fingerprint) if fingerprint else None
    receipt = accept_receipt(file, open_workspace(workspace), wanted)
    if as_json:
        terminal.answer_json(_members(receipt))
        return
    for line in _lines(receipt):
        terminal.answer(line)


def _target(destination: Path, receipt: Receipt) -> Path:
    # A stick may carry receipts of several hosts, and several of one host.
    if destination.is_dir():
        return destination / f"receipt-{receipt.host.fingerprint[:12]}-{receipt.counter}.json"
    if destination.absolute().parent.is_dir():
        return destination.absolute()
    raise UsageError(
        "receipt.no-folder",
        str(destination),
        expected="a folder, or a file in a folder that exists",
        found="no such folder",
        hint="check the path, and that the stick is mounted",
    )


def _members(receipt: Receipt) -> dict[str, Any]:
    return {**load(receipt.payload, "receipt"), "host": receipt.host.fingerprint}


def _lines(receipt: Receipt) -> Iterator[str]:
    floors = receipt.floors
    yield f"receipt    {receipt.counter} of the host with key {receipt.host.fingerprint}"
    yield f"its clock  {receipt.time}"
    yield (
        f"floors     root {floors.root}, targets {floors.targets}, snapshot {floors.snapshot}, "
        f"timestamp {floors.timestamp}; proved at {floors.time}"
    )
    yield f"level      {receipt.level or 'none: no model is served'}"
    yield f"reads      contents up to format {receipt.reads}"
    for bundle in receipt.bundles:
        serves = ", serves" if bundle.manifest == receipt.release else ""
        yield f"holds      {bundle.name} {bundle.version}  manifest sha256:{bundle.manifest}{serves}"
