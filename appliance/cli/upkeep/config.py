"""`appliance config`: show, check and apply what the site has decided, in `site.yaml`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.planner.host_card import run_tool
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.maintenance.configuration_change import AppliedConfiguration, apply_configuration
from appliance.host.maintenance.site_state import SiteValue, applied_values, site_drift, site_values, unused_values
from appliance.host.release.release import Release, current_target, open_current
from appliance.host.site.config import read_site, site_schema
from appliance.host.site.site_check import check_models, check_site
from appliance.serve.supervisor import run_dir
from bundles.report import shell_word
from signing.errors import UsageError


@click.group("config", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show, check or apply what the site has decided: site.yaml.

    \b
    Example:
      appliance config check
    """


@command.command("check")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@prefix_option
@json_option
@pass_terminal
def check(terminal: Terminal, file: Path | None, prefix: Path | None, as_json: bool) -> None:
    """Check a site.yaml, and change nothing.

    FILE is checked in place of the host's own. Every fault is shown as FILE:LINE:COLUMN, with what the field may hold.

    \b
    Example:
      appliance config check ./site.yaml
    """
    host = Prefix.at(prefix or Path("/"))
    path = file or host.site_file
    if file is not None and not file.is_file():
        raise UsageError("site.refused", str(file), expected="a file", found="none", hint="check the path")
    site = read_site(path)
    check_site(host, site, clock.utc_now())
    release = _release(host)
    if release is not None:
        check_models(host, site, [model.name for model in release.contents.models])
    notes = unused_values(site, release) if release else ()
    is_applied = None if release is None else not site_drift(release, site)
    if as_json:
        terminal.answer_json({"file": str(path), "sha256": site.digest, "notes": list(notes), "is_applied": is_applied})
        return
    terminal.answer(f"{path} is right")
    for note in notes:
        terminal.answer(f"note: {note}")
    if is_applied is not None:
        terminal.answer(_next_step(host, file, is_applied=is_applied))


@command.command("show")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of site.yaml instead.")
@prefix_option
@json_option
@pass_terminal
def show(terminal: Terminal, schema: bool, prefix: Path | None, as_json: bool) -> None:
    """Show every field of site.yaml: its value, where that comes from, and what serves.

    The schema is for editors and other tools: it is made from the same table as the checks.

    \b
    Example:
      appliance config show
      appliance config show --schema >site.schema.json
    """
    if schema:
        terminal.answer_json(site_schema())
        return
    host = Prefix.at(prefix or Path("/"))
    site = read_site(host.site_file)
    release = _release(host)
    applied = applied_values(release) if release else {}
    rows = site_values(site, host.site_file)
    if as_json:
        fields = [{**asdict(row), "applied": applied.get(row.name)} for row in rows]
        drift = None if release is None else not site_drift(release, site)
        terminal.answer_json({"file": str(host.site_file), "fields": fields, "is_applied": drift})
        return
    head = ("field", "value", "from", *(("serves",) if applied else ()))
    terminal.table(head, [_row(row, applied) for row in rows])
    if release is not None:
        for error in site_drift(release, site):
            terminal.message(f"not applied yet: {error.found}")
            terminal.message(f"hint: {error.hint}")


@command.command("apply")
@prefix_option
@json_option
@pass_terminal
def apply(terminal: Terminal, prefix: Path | None, as_json: bool) -> None:
    """Bring the site.yaml of this host into the release that serves, without a stick.

    The release is verified, then its playbooks write the new configuration. Engines are tried where theirs changes.
    Whatever fails before users reach the new configuration brings the old one back (exit 7).

    \b
    Example:
      sudo appliance config apply
    """
    host = Prefix.at(prefix or Path("/"))
    with terminal.progress() as on_progress:
        card = probe_essentials(clock.utc_now(), run_tool)
        applied = apply_configuration(host, card, clock.utc_now, is_root=os.geteuid() == 0, on_progress=on_progress)
    serving = run_dir.read_serving(host) if not host.is_system else None
    if as_json:
        release = applied.release
        terminal.answer_json(
            {"release": str(release.path), "site": release.facts.site, "changed": list(applied.changed)}
        )
        return
    for line in _applied_lines(host, applied):
        terminal.answer(line)
    if applied.changed and serving is not None:
        terminal.message(f"process {serving.get('pid', '')} serves with the configuration from before")
        terminal.message(f"hint: end it, then start it again: appliance serve{host.option}")


def _release(host: Prefix) -> Release | None:
    return None if current_target(host) is None else open_current(host, clock.utc_now())


def _row(row: SiteValue, applied: dict[str, object]) -> tuple[str, ...]:
    cells = (row.name, _text(row.value), row.source)
    return (*cells, _text(applied[row.name])) if applied else cells


def _text(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _next_step(host: Prefix, file: Path | None, *, is_applied: bool) -> str:
    if is_applied:
        return "it is what serves"
    if file is None:
        return f"it is not applied yet: appliance config apply{host.option}"
    copy = f"cp {shell_word(str(file), 'FILE')} {shell_word(str(host.site_file), 'SITE.YAML')}"
    return f"it is not what serves. To apply it: {copy} && appliance config apply{host.option}"


def _applied_lines(host: Prefix, applied: AppliedConfiguration) -> list[str]:
    if not applied.changed:
        return [f"{host.site_file} is what serves; no file had to be changed"]
    lines = [f"{host.site_file} is applied to {applied.release.path.name}"]
    lines += [f"changed    {name}" for name in applied.changed]
    return lines + ([f"answer     {applied.answer}"] if applied.answer else [])
