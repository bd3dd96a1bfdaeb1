"""`appliance serve`: verify what is installed, then serve it until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.console.options import pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal

if TYPE_CHECKING:
    from appliance.host.tree.prefix import Prefix
    from appliance.serve.supervisor.engine_keeper import Happening

_WORDS = {
    "ready": "serves",
    "ended": "ended and is started again after another check",
    "incident": "STOPPED: its bytes are not the signed ones",
    "given-up": "stopped: it keeps ending",
}


@click.command("serve")
@prefix_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Where users connect; 0 takes any free port. Without it, the port of site.yaml.",
)
@pass_terminal
def command(terminal: Terminal, prefix: Path | None, port: int | None) -> None:
    """Verify everything that is installed, start the engines and the gateway, and serve until Ctrl-C.

    When all is ready, one line of JSON on standard output says where: url, key_file, release, models.

    \b
    Example:
      appliance serve --prefix .demo/host --port 0
      curl -H "Authorization: Bearer $(cat .demo/host/etc/appliance/default.key)" URL/v1/models
    """
    from appliance.cli.console.clock import utc_now
    from appliance.host.tree.prefix import Prefix
    from appliance.serve.supervisor.service import serving

    def tell(happening: Happening) -> None:
        _show(terminal, happening)

    host = Prefix.at(prefix or Path("/"))
    _leave_to_systemd(host)
    with (
        terminal.progress() as progress,
        serving(host, port, utc_now, tell, progress) as found,
    ):
        progress.close()
        if found.launch.release.bundle.evidence.is_development:
            terminal.development()
        terminal.say(f"{found.launch.release.bundle.value.label} serves at {found.url}; Ctrl-C ends it")
        terminal.answer_json(found.describe(), one_line=True)
        found.wait()


def _leave_to_systemd(host: Prefix) -> None:
    from appliance.host.process import systemctl
    from appliance.host.tree.units import GATEWAY_UNIT
    from signing.errors import BusyError

    if host.is_system and systemctl.version() and systemctl.state(GATEWAY_UNIT).is_active:
        raise BusyError(
            "serve.busy",
            GATEWAY_UNIT,
            expected="a host that serves nothing yet",
            found="systemd running it",
            hint=f"use what it serves; `appliance status` tells more; to end it: systemctl stop {GATEWAY_UNIT}",
        )


def _show(terminal: Terminal, happening: Happening) -> None:
    style = "bold red" if happening.what in ("incident", "given-up") else None
    detail = f" ({happening.detail})" if happening.detail else ""
    terminal.say(f"{happening.subject} {_WORDS[happening.what]}{detail}", style=style)
