"""`appliance switch`: from a staged release to one that serves."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.operator.install import read_host, report
from appliance.host.install.switching import switch_release
from appliance.host.layout.prefix import Prefix


@click.command("switch")
@click.argument("release", required=False)
@prefix_option
@json_option
@pass_terminal
def command(terminal: Terminal, release: str | None, prefix: Path | None, as_json: bool) -> None:
    """Make a staged RELEASE serve.

    It was staged by `appliance install --stage`, and its stick is not needed. RELEASE may be left out where only one is
    staged. Every byte is verified again first. Users go on with the release before until the new one answers; where it
    does not, the one before serves again (7). The new release is then on trial: after the time of health that
    site.yaml names, it is good.

    \b
    Example:
      appliance switch
      appliance switch 1.1.0-3f2a9c0b7d15
    """
    host = read_host(Prefix.at(prefix or Path("/")))
    with terminal.progress() as on_progress:
        done = switch_release(release, host, on_progress)
    report(terminal, done, as_json)
