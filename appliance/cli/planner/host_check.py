"""`appliance host check`: preflight alone, on one card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.bundle_argument import open_named_media
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import select_option
from appliance.cli.planner.host_card import run_tool
from appliance.host.install.bundle_admission import model_workloads, release_path
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.preflight.finding import HostFinding, Level, refuse
from appliance.host.preflight.host_check import check_installable, look_at_host, look_at_machine
from appliance.host.preflight.inputs import Host
from appliance.host.preflight.surroundings import read_surroundings
from appliance.host.release.held_chunks import held_chunks
from appliance.host.release.held_source import HeldSource
from appliance.host.site.config import read_site
from appliance.host.trust.trust_store import read_floors

_MARKS = {Level.OK: "ok", Level.WARNING: "note", Level.PROBLEM: "NO"}
_COLUMN = 6


@click.command("check")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--older", is_flag=True, help="Judge as `install --older` does: the bundle may be older than what serves."
)
@prefix_option
@trust_option
@named_workspace_option
@select_option
@json_option
@pass_terminal
def check(
    terminal: Terminal,
    sources: tuple[Path, ...],
    older: bool,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    select: str,
    as_json: bool,
) -> None:
    """Check whether this machine can take the bundle at SOURCE, and change nothing.

    Every point is shown with what is required and what was measured, and every problem with its remedy, all at once.
    It is the check that `appliance install` begins with. Without SOURCE, what needs no bundle is checked. No network
    is used, and a wrong clock is only a note. Exit code 6: there is a problem.

    \b
    Example:
      appliance host check
      appliance host check /media/stick
    """
    host = this_host(Prefix.at(prefix or Path("/")), may_go_back=older)
    floor_time = read_floors(host.prefix).time
    if sources:
        media = open_named_media(sources, trust, prefix, workspace, terminal.message)
        found = media.select(select)
        contents = found.value.contents
        check_installable(contents)
        held = held_chunks(host.prefix) if media.source.missing(found.value) else {}
        models = model_workloads(HeldSource(media.source, held), contents, read_site(host.prefix.site_file))
        floor_time = found.evidence.floors.time
        findings = look_at_host(contents, models, host, release_path(host.prefix, found.value), floor_time).findings
    else:
        findings = look_at_machine(host, floor_time)
    if as_json:
        terminal.answer_json({"fits": not _problems(findings), "findings": [finding_value(one) for one in findings]})
    else:
        for line in finding_lines(findings):
            terminal.answer(line)
    refuse(findings)


def this_host(prefix: Prefix, *, may_go_back: bool = False) -> Host:
    """This machine as an install would see it."""
    card = probe_essentials(clock.utc_now(), run_tool)
    search_path, is_root = os.environ.get("PATH", ""), os.geteuid() == 0
    around = read_surroundings()
    return Host(prefix, card, clock.utc_now, search_path, is_root, may_go_back=may_go_back, around=around)


def finding_value(finding: HostFinding) -> dict[str, Any]:
    """A finding as a JSON object."""
    return {
        "subject": finding.subject,
        "level": finding.level.value,
        "required": finding.required,
        "measured": finding.measured,
        "remedy": finding.remedy,
    }


def finding_lines(findings: Sequence[HostFinding]) -> list[str]:
    """The findings as lines of a card: one for each, and one more for a remedy."""
    lines = []
    for one in findings:
        texts = [f"{one.subject}: {one.measured}, required: {one.required}"]
        lines += labelled(_MARKS[one.level], [*texts, *([f"remedy: {one.remedy}"] if one.remedy else [])], _COLUMN)
    problems = len(_problems(findings))
    return [
        *lines,
        f"{problems} of {len(findings)} points prevent an install" if problems else "nothing prevents an install",
    ]


def _problems(findings: Sequence[HostFinding]) -> list[HostFinding]:
    return [one for one in findings if one.level is Level.PROBLEM]
