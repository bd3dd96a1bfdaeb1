"""`appliance serve`: verify what is installed, then serve it until Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import pass_terminal, prefix_option
from appliance.cli.console.stream import Style
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.layout.unit_files import GATEWAY_UNIT
from appliance.host.maintenance.configuration_change import finish_interrupted
from appliance.host.process import systemctl
from appliance.serve.supervisor.service_event import OnServiceEvent, ServiceEvent
from appliance.serve.supervisor.serving import serving
from appliance.serve.supervisor.trial_keeper import TrialKeeper, is_fault_of_release, undo_cut_off_switch
from signing.errors import ApplianceError, BusyError


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
    """Verify everything that is installed, then serve it until Ctrl-C.

    When the engines and the gateway are ready, one line of JSON on standard output gives url, key_file, release and
    models.

    \b
    Example:
      appliance serve --prefix .demo/host --port 0
      curl -H "Authorization: Bearer $(cat .demo/host/etc/appliance/default.key)" URL/v1/models
    """

    def on_event(event: ServiceEvent) -> None:
        _show(terminal, event)

    host = Prefix.at(prefix or Path("/"))
    _refuse_beside_systemd(host)
    if finish_interrupted(host):
        terminal.message("a change of the configuration was interrupted: the configuration from before serves")
    if undo_cut_off_switch(host):
        terminal.message("a switch had been cut off: the release before serves")
    try:
        _serve(terminal, host, port, on_event)
    except ApplianceError as error:
        keeper = TrialKeeper(host, clock.utc_now, on_event)
        if not is_fault_of_release(error) or not keeper.give_up(str(error)):
            raise
        _serve(terminal, host, port, on_event)


def _serve(terminal: Terminal, host: Prefix, port: int | None, on_event: OnServiceEvent) -> None:
    with (
        terminal.progress() as progress,
        serving(host, port, clock.utc_now, on_event, progress) as found,
    ):
        progress.close()
        if found.launch.release.bundle.evidence.is_development:
            terminal.development()
        terminal.message(f"{found.launch.release.bundle.value.label} serves at {found.url}; Ctrl-C ends it")
        terminal.answer_json(found.describe(), one_line=True)
        found.wait()


def _refuse_beside_systemd(host: Prefix) -> None:
    if host.is_system and systemctl.version() and systemctl.state(GATEWAY_UNIT).is_active:
        raise BusyError(
            "serve.busy",
            GATEWAY_UNIT,
            expected="a host that serves nothing yet",
            found="systemd running it",
            hint=f"use what it serves (see `appliance status`), or end it: systemctl stop {GATEWAY_UNIT}",
        )


def _show(terminal: Terminal, event: ServiceEvent) -> None:
    style: Style | None = "bold red" if event.is_stop else None
    terminal.message(event.line(), style=style)
