"""`appliance doctor`: what is wrong on this machine, and the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import json_option, named_workspace_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.planner.host_card import run_tool
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.maintenance.doctor import WRONG, Diagnosis, Patient, examine, next_step
from appliance.host.process.systemctl import UnitState
from appliance.host.release.release import Release
from appliance.serve.supervisor.engine_states import incident_errors, read_engine_states, stopped_engines
from bundles.stick.mounts import read_mounts
from signing.errors import ApplianceError

_COLUMN = 18


@click.command("doctor")
@click.argument("media", metavar="[STICK]…", nargs=-1, type=click.Path(path_type=Path))
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal, media: tuple[Path, ...], prefix: Path | None, workspace: Path | None, as_json: bool
) -> None:
    """Show what is wrong on this machine, and the command that mends it.

    Looks at the machine, its clock, the workspace, the sticks that are mounted, and the host. The current folder is the
    workspace where it holds one. Nothing is changed. No large file is compared: `status` and `verify` do that.

    Exit 0: nothing is wrong. 1: something is.

    \b
    Example:
      appliance doctor
      appliance doctor /media/stick
    """
    now = clock.utc_now()
    patient = Patient(
        Prefix.at(prefix or Path("/")),
        probe_essentials(now, run_tool),
        now,
        workspace or _here(),
        tuple(path.absolute() for path in media),
        read_mounts(),
    )
    found = examine(patient, _stopped)
    wrong = [one for one in found if one.state == WRONG]
    step = next_step(patient, found)
    if as_json:
        answer = {"findings": [asdict(one) for one in found], "next_command": step, "exit_code": int(bool(wrong))}
        terminal.answer_json(answer)
    else:
        _show(terminal, found, wrong, step)
    if wrong:
        raise SystemExit(1)


def _show(terminal: Terminal, found: Sequence[Diagnosis], wrong: Sequence[Diagnosis], step: str) -> None:
    for one in found:
        texts = [one.found, *([f"mend: {one.command}"] if one.state == WRONG and one.command else [])]
        for line in labelled(f"{one.area:<11}{one.state}", texts, _COLUMN):
            terminal.answer(line)
    count = {0: "nothing is wrong", 1: "1 thing is wrong"}.get(len(wrong), f"{len(wrong)} things are wrong")
    terminal.answer(count)
    terminal.answer(f"next: {step}")


def _here() -> Path | None:
    """The current folder, where it is a workspace."""
    here = Path.cwd()
    return here if (here / "trust").is_dir() and (here / "keys").is_dir() else None


def _stopped(release: Release, services: tuple[UnitState, ...]) -> Sequence[ApplianceError]:
    states = read_engine_states(release, services)
    return [*stopped_engines(release, states), *incident_errors(release, states)]
