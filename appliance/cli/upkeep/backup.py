"""`appliance backup`: what a host cannot get back from a stick."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.backup import write_backup
from bundles.report import format_size


@click.command("backup")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@prefix_option
@json_option
@pass_terminal
def command(terminal: Terminal, destination: Path, prefix: Path | None, as_json: bool) -> None:
    """Write what no stick can bring back to DEST: floors, keys, configuration.

    It makes one folder in DEST, signed with this host's key: the pinned root, the floors, the number of the last
    receipt, the users' keys (as hashes), the site's configuration and the audit log. No private key is in it, and no
    key that a user could type. It has names of users and of the site: keep it like the host itself. Models and programs
    come from sticks. Every file is read back.

    \b
    Example:
      appliance backup /media/stick
    """
    done = write_backup(Prefix.at(prefix or Path("/")), destination, clock.utc_now())
    size = sum(file.size for file in done.manifest.files)
    if as_json:
        terminal.answer_json(
            {
                "path": str(done.path),
                "host": done.manifest.host.fingerprint,
                "time": done.manifest.time,
                "files": [file.path for file in done.manifest.files],
                "bytes": size,
            }
        )
        return
    for file in done.manifest.files:
        terminal.message(f"holds      {file.path}")
    terminal.message(f"signed by  {done.manifest.host.fingerprint}: write it down, a new host asks for it")
    terminal.answer(f"wrote {done.path}, {format_size(size)}")
