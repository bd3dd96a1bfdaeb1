"""`appliance scrub`: read the models from the disk again, and stop those that differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.models.scrub import become_idle
from appliance.host.process.journal import command_sink
from appliance.host.release.release import Release, open_current
from appliance.serve.supervisor.scrubbing import ModelScrub, ScrubReport, scrub_release
from bundles.report import fault_fields
from signing.errors import UsageError, worst


@click.command("scrub")
@click.option("--model", "models", metavar="NAME", multiple=True, help="Read this model alone; may be repeated.")
@prefix_option
@json_option
@pass_terminal
def command(terminal: Terminal, models: tuple[str, ...], prefix: Path | None, as_json: bool) -> None:
    """Read the served models from the disk again.

    Every byte is compared with what was signed. A model with a difference is stopped at once, and stays stopped until
    `appliance install` has repaired it; the others serve on. It takes only what others leave of the processor and the
    disk. On a whole machine a timer does the same once a week, and `appliance serve` does below a prefix.

    Exit 0: all is as it was signed. 9: a model was stopped.

    \b
    Example:
      appliance scrub
      appliance scrub --model smollm2
    """
    host = Prefix.at(prefix or Path("/"))
    release = open_current(host, clock.utc_now())
    names = _named(release, models)
    become_idle()
    with terminal.progress() as on_progress:
        sink = command_sink(is_system=host.is_system)
        report = scrub_release(release, names, clock.utc_now, sink, on_progress)
    if as_json:
        terminal.answer_json(_answer(report))
    else:
        for one in report.models:
            terminal.answer(f"{one.model}  {_describe(one)}")
    if errors := report.errors():
        raise worst(errors)


def _named(release: Release, models: tuple[str, ...]) -> tuple[str, ...]:
    known = [model.name for model in release.contents.models]
    for name in models:
        if name not in known:
            raise UsageError(
                "scrub.model", name, expected=f"one of {', '.join(known)}", found=name, hint="see `appliance status`"
            )
    return models or tuple(known)


def _describe(one: ModelScrub) -> str:
    if one.incident is not None:
        return f"STOPPED: {one.incident.reason}"
    assert one.file is not None  # what could not be opened is an incident
    sealed = "sealed" if one.file.is_sealed else "not sealed"
    return f"{one.file.size_bytes} bytes as they were signed, {sealed}"


def _answer(report: ScrubReport) -> dict[str, Any]:
    errors = report.errors()
    return {
        "models": [
            {
                "model": one.model,
                "read_bytes": one.file.size_bytes if one.file else 0,
                "sealed": one.file.is_sealed if one.file else False,
                "direct": one.file.is_direct if one.file else False,
                "incident": asdict(one.incident) if one.incident else None,
            }
            for one in report.models
        ],
        "exit_code": worst(errors).exit_code if errors else 0,
        "errors": [fault_fields(one) for one in errors],
    }
