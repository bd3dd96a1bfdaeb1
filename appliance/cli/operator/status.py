"""`appliance status`: what is installed, and whether it still is what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.engine.state import SERVING, EngineState
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.egress import describe_egress
from appliance.host.maintenance.host_life import (
    AT_WORK,
    GOOD,
    TRYING,
    UNFINISHED,
    UNSEEN,
    describe_change_record,
    is_return,
)
from appliance.host.maintenance.status import Status, read_status
from appliance.host.tls.expiry import describe_json, describe_served
from appliance.serve.supervisor.engine_states import (
    describe_threads,
    incident_errors,
    read_engine_states,
    stopped_engines,
)
from appliance.serve.supervisor.scrubbing import describe_last_scrub, read_last_scrub
from bundles.report import fault_fields, override_lines


@click.command("status")
@prefix_option
@json_option
@pass_terminal
def command(terminal: Terminal, prefix: Path | None, as_json: bool) -> None:
    """Show what is installed, and every difference from what was signed.

    The answer names the release that serves, who signed it, and whether its services and engines run. It states whether
    the release is good or still trying, what was interrupted, and the next command. Every byte of the release is read.
    Where something differs the exit code is that of `verify` and `serve`: 3 for signed files, 4 for
    files that nothing signed names, 9 for what this host made or runs.

    \b
    Example:
      appliance status
    """
    with terminal.progress() as on_progress:
        status = read_status(Prefix.at(prefix or Path("/")), clock.utc_now(), on_progress)
    engines = read_engine_states(status.release, status.services)
    stopped = (*stopped_engines(status.release, engines), *incident_errors(status.release, engines))
    status = replace(status, problems=(*status.problems, *stopped))
    if status.is_development:
        terminal.development()
    if as_json:
        terminal.answer_json(_answer(status, engines))
    else:
        _show(terminal, status, engines)
    failure = status.failure()
    if failure is not None:
        raise failure


def _show(terminal: Terminal, status: Status, engines: dict[str, EngineState]) -> None:
    release, evidence = status.release, status.release.bundle.evidence
    terminal.answer(f"{release.bundle.value.label}  manifest sha256:{release.bundle.value.manifest}")
    terminal.answer(f"release    {release.path}")
    terminal.answer(f"signed by  {', '.join(status.signers)} ({evidence.threshold} needed)")
    terminal.answer(f"in the newest metadata it is {evidence.status}; last proof of freshness {status.floors.time}")
    floors, receipts = status.floors, status.receipts
    terminal.answer(
        f"floors     root {floors.root}, targets {floors.targets}, snapshot {floors.snapshot}, "
        f"timestamp {floors.timestamp}; proved at {floors.time}"
    )
    terminal.answer(
        f"receipts   the last one is number {receipts.counter}, of {receipts.time}"
        if receipts.counter
        else "receipts   none"
    )
    terminal.answer(f"{evidence.expires[1]} expires {evidence.expires[0]}; that stops new installs, not serving")
    for line in _life_lines(status):
        terminal.answer(line)
    for line in override_lines(status.override):
        terminal.answer(line)
    terminal.answer(f"variant    {release.facts.cpu_variant}, {release.facts.tokens_per_s} tokens/s at install")
    terminal.answer(f"isolation  {release.facts.isolation} at install")
    terminal.answer(f"threads    {describe_threads(release)}")
    for model in release.contents.models:
        file, _ = release.model_file(model)
        terminal.answer(f"model      {model.name}  {model.quantisation}  sha256:{file.sha256}")
    if status.certificate is not None:
        terminal.answer(f"tls        {describe_served(status.certificate, release.prefix.option)}")
    for unit in status.services:
        terminal.answer(f"service    {unit.name}  {unit.active}, {unit.enabled or 'unknown to systemd'}")
    if status.egress is not None:
        terminal.answer(f"attempts   {describe_egress(status.egress)}")
    for name, engine in engines.items():
        terminal.answer(f"engine     {name}  {_describe(engine)}")
    if scrub := read_last_scrub(release.prefix):
        terminal.answer(f"scrub      {describe_last_scrub(scrub)}")
    for stopped in (*stopped_engines(release, engines), *incident_errors(release, engines)):
        terminal.answer(f"next       {stopped.hint}")
    terminal.answer(f"differences: {len(status.problems)}" if status.problems else "everything is as it was signed")


def _life_lines(status: Status) -> Iterator[str]:
    life = status.life
    assert life is not None  # `read_status` reads it
    words = {
        GOOD: "good: nothing is unfinished",
        TRYING: "trying: it becomes good when it has been healthy long enough, else the previous release comes back",
        AT_WORK: "a command is changing this host at this moment",
        UNSEEN: "a change is recorded; root can see which",
        UNFINISHED: "in the middle of a change that was interrupted",
    }
    yield f"state      {words[life.state]}"
    if life.change is not None:
        yield f"change     {describe_change_record(life.change)}"
    if life.cut_off is not None:
        cut = life.cut_off
        yield f"interrupted  step {cut.step} of {cut.release}, begun {cut.time}: what served goes on serving"
    if life.next_command:
        yield f"next       {life.next_command}"
    for name in life.staged:
        yield f"staged     {name}: appliance switch {name}{status.release.prefix.option} makes it serve"
    if life.previous:
        yield f"previous   {life.previous}: appliance rollback{status.release.prefix.option} returns to it"
    if life.incident is not None:
        incident = life.incident
        what = f"step {incident.step} of {incident.release} failed: {incident.note}"
        if is_return(incident):
            what = f"this host went back to {incident.release} by itself, {incident.note}"
        yield f"incident   {incident.time} {what}"


def _life_answer(status: Status) -> dict[str, Any]:
    life = status.life
    assert life is not None  # `read_status` reads it
    return {
        "state": life.state,
        "change": asdict(life.change) if life.change else None,
        "next_command": life.next_command,
        "staged": list(life.staged),
        "previous": life.previous,
        "incident": asdict(life.incident) if life.incident else None,
        "interrupted": asdict(life.cut_off) if life.cut_off else None,
    }


def _describe(engine: EngineState) -> str:
    if engine.status == SERVING:
        return f"{engine.status}, level {engine.level}, isolation {engine.isolation}, process {engine.pid}"
    return f"{engine.status}: {engine.reason}" if engine.reason else engine.status


def _answer(status: Status, engines: dict[str, EngineState]) -> dict[str, Any]:
    release, evidence = status.release, status.release.bundle.evidence
    return {
        "name": release.contents.name,
        "version": release.contents.version,
        "manifest": release.bundle.value.manifest,
        "release": str(release.path),
        "signers": list(status.signers),
        "threshold": evidence.threshold,
        "development": status.is_development,
        "target_status": evidence.status,
        "freshness": status.floors.time,
        **_life_answer(status),
        "floors": asdict(status.floors),
        "receipts": asdict(status.receipts),
        "expires": {"role": evidence.expires[1], "time": evidence.expires[0]},
        "override": status.override,
        "cpu_variant": release.facts.cpu_variant,
        "tokens_per_s": release.facts.tokens_per_s,
        "isolation": release.facts.isolation,
        "threads": describe_threads(release),
        "models": [
            {"name": model.name, "path": model.path, "sha256": release.model_file(model)[0].sha256}
            for model in release.contents.models
        ],
        "services": [{"unit": unit.name, "active": unit.active, "enabled": unit.enabled} for unit in status.services],
        "tls": describe_json(status.certificate) if status.certificate is not None else None,
        "egress": asdict(status.egress) if status.egress is not None else None,
        "scrub": asdict(scrub) if (scrub := read_last_scrub(release.prefix)) else None,
        "engines": [{"model": name, **asdict(engine)} for name, engine in engines.items()],
        "exit_code": failure.exit_code if (failure := status.failure()) is not None else 0,
        "errors": [fault_fields(one) for one in status.problems],
    }
