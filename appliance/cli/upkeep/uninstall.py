"""`appliance uninstall`: this host as it was before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.agreement import ask_person
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.planner.host_card import run_tool
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.maintenance.uninstall import UninstallPlan, plan_uninstall, resumed_purge, uninstall
from appliance.serve.supervisor.run_dir import hold as hold_serving
from bundles.report import format_size


@click.command("uninstall")
@prefix_option
@click.option("--purge", is_flag=True, help="Remove trust, audit log, keys and the site's configuration, too.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@click.option("--resume", is_flag=True, help="Finish one that was cut off, without a question.")
@json_option
@pass_terminal
def command(terminal: Terminal, prefix: Path | None, purge: bool, yes: bool, resume: bool, as_json: bool) -> None:
    """Remove the appliance from this host: files, services, users.

    It shows what goes and what stays, and asks once. The pinned root, the floors, the audit log, the users' keys, the
    journal and the site's configuration stay, so that a later install goes on from them; --purge removes them, too.
    Packages of the operating system stay and are listed. Make a backup first: appliance backup DEST.

    After a power cut it is finished at the next boot, and by the same command.

    \b
    Example:
      appliance uninstall
      appliance uninstall --purge --yes
    """
    host = Prefix.at(prefix or Path("/"))
    if resume:
        purge = resumed_purge(host)
    plan = plan_uninstall(host, probe_essentials(clock.utc_now(), run_tool).system.os, purge=purge)
    for line in _lines(plan):
        terminal.message(line)
    if not (yes or resume):
        _ask(host)
    # Everything that follows is loaded by then: the files of this program are among those that go.
    answer = _answer(plan)
    with hold_serving(host):
        uninstall(host, clock.utc_now, purge=purge)
    if as_json:
        terminal.answer_json(answer)
    else:
        terminal.answer(f"removed; {format_size(plan.size_bytes)} are free again")


def _ask(host: Prefix) -> None:
    ask_person(
        "uninstall.unasked",
        str(host.root),
        "somebody at a terminal who agrees that this host serves no more, or --yes",
        "remove this?",
    )


def _lines(plan: UninstallPlan) -> list[str]:
    lines = [f"removes    {path}" for path in plan.removes]
    lines += [f"removes    unit {name}" for name in plan.units]
    lines += [f"removes    user or group {name}, where an install made it" for name in plan.accounts]
    lines += [f"keeps      {path}" for path in plan.keeps]
    lines += [f"keeps      package {name}" for name in plan.packages]
    return lines


def _answer(plan: UninstallPlan) -> dict[str, Any]:
    return {
        **asdict(plan),
        "removes": [str(path) for path in plan.removes],
        "keeps": [str(path) for path in plan.keeps],
    }
