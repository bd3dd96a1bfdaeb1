"""`appliance install`: from a stick to a release that serves."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.figures import format_duration
from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.console.waiting import select_option, wait_option, waiting_of
from appliance.cli.operator.install_dialogue import OperatorDialogue
from appliance.cli.planner.host_card import run_tool
from appliance.host.install.hand_over import own_set_kept
from appliance.host.install.install import install
from appliance.host.install.install_run import STAGED, TRYING_NOW
from appliance.host.install.planning.install_plan import InstallResult
from appliance.host.install.planning.plan_file import MAX_PLAN_BYTES, read_plan
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.preflight.inputs import Host, SourceMedia
from appliance.host.preflight.surroundings import read_surroundings
from appliance.host.release.release import Release
from appliance.host.tls.local_connection import format_url
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.root_pin import check_first_root, compare_root
from appliance.host.trust.trust_store import read_root
from bundles.attestation.dsse import MAX_ENVELOPE_BYTES
from bundles.bundle import not_found
from signing.chain import read_root as parse_root


@click.command("install")
@click.argument(
    "sources",
    metavar="SOURCE...",
    nargs=-1,
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
)
@prefix_option
@trust_option
@named_workspace_option
@click.option(
    "--override",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An expiry override that the people who sign content made for this bundle and this host or site.",
)
@click.option(
    "--root",
    "root_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pin this root with the install, if its keys have the fingerprints; see `appliance trust pin`.",
)
@click.option(
    "--fingerprint",
    "fingerprints",
    metavar="SHA256",
    multiple=True,
    help="A root key's fingerprint, from paper; as many as must sign. With --root. May be given several times.",
)
@click.option(
    "--older", is_flag=True, help="Go back: install a bundle that is older than the release that serves here."
)
@click.option(
    "--plan",
    "plan_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Install only what this plan names, from `appliance plan SOURCE --json`; refuse where anything differs since.",
)
@click.option("--stage", is_flag=True, help="Stop before the switch: `appliance switch` makes the release serve later.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts. Without a terminal nothing is asked.")
@select_option
@wait_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    sources: tuple[Path, ...],
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    override: Path | None,
    root_file: Path | None,
    fingerprints: tuple[str, ...],
    older: bool,
    plan_file: Path | None,
    stage: bool,
    yes: bool,
    select: str,
    wait: bool | None,
    as_json: bool,
) -> None:
    """Install the bundle at SOURCE on this host, or finish or repair it.

    SOURCE is a stick or a bundle's folder; several are sticks that together hold it, in any order. On a terminal, or
    with --wait, it waits for sticks that are not plugged in yet. Signatures are verified before anything is written,
    and every byte while it is copied; nothing of it runs before that. The release before serves until the new one has
    answered. No network is needed. After an interruption or damage run it again: it continues where it stopped, and
    repairs what differs. It then reads from SOURCE only what is missing here.

    It shows what it would do, and on a terminal it asks once before it installs anything. With --plan it refuses what
    that plan does not name. A bundle that is older than the release that serves needs --older. A bundle is installed
    by the program that it brings: where that is another than this one, this one verifies the bundle and starts it.

    The trust root must be pinned: with `appliance trust pin` before, or here with --root and the --fingerprint options,
    by the same rules. A root that is pinned already is never replaced: the bundle must then be covered by both. Only a
    development root, which is for trials, is pinned by the first install that names it.

    As root, on a machine with systemd, it installs services that start at every boot. With --prefix it needs neither:
    everything lies in one folder, and `appliance serve` serves it in the foreground.

    \b
    Example:
      appliance install /media/stick
      appliance install /media/stick --prefix /srv/appliance
      appliance install /media/stick-1 /media/stick-2
      appliance install /media/stick --root root.json --fingerprint 3f…e1 --yes
      appliance install /media/stick-of-last-year --older
      appliance install /media/stick --stage
      appliance install /media/stick --plan plan.json
    """
    place = Prefix.at(prefix or Path("/"))
    media = SourceMedia(sources, select, waiting_of(terminal, wait))
    _require_folders(media)
    root = _read_trust(place, trust, workspace, root_file, fingerprints)
    _announce_pin(terminal, place, root, is_compared=root_file is not None)
    host = read_host(place, _read_override(override), is_root_compared=root_file is not None)
    host = replace(host, may_go_back=older, plan=_read_plan(plan_file))
    with own_set_kept(), terminal.progress() as on_progress:
        dialogue = OperatorDialogue(terminal, host, on_progress, is_agreed=yes)
        done = install(media, root, host, on_progress, dialogue, is_staging=stage)
    report(terminal, done, as_json)


def _read_plan(path: Path | None) -> bytes | None:
    if path is None:
        return None
    with path.open("rb") as file:
        data = file.read(MAX_PLAN_BYTES + 1)
    read_plan(data)
    return data


def _require_folders(media: SourceMedia) -> None:
    # Before a root is chosen: a path that was typed wrongly is what is wrong. With --wait it may be there later.
    for path in media.paths:
        if not path.is_dir() and not (media.waiting is not None and media.waiting.is_filling):
            raise not_found(path)


def read_host(place: Prefix, override: bytes | None = None, *, is_root_compared: bool = False) -> Host:
    """The machine of a command that changes it, and what its operator has chosen."""
    card = probe_essentials(clock.utc_now(), run_tool)
    path, is_root = os.environ.get("PATH", ""), os.geteuid() == 0
    around = read_surroundings()
    return Host(place, card, clock.utc_now, path, is_root, override, is_root_compared, around=around)


def report(terminal: Terminal, done: InstallResult, as_json: bool) -> None:
    """Show what an install or a switch has done."""
    for warning in done.warnings:
        terminal.message(f"warning: {warning}")
    if done.interrupted is not None:
        terminal.message(f"the run before had stopped in the step {done.interrupted.step}; this one finished it")
    if done.release.bundle.evidence.is_development:
        terminal.development()
    if as_json:
        terminal.answer_json(_answer(done))
    else:
        _show(terminal, done)


def _read_override(path: Path | None) -> bytes | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return file.read(MAX_ENVELOPE_BYTES + 1)


def _read_trust(
    place: Prefix, trust: Path | None, workspace: Path | None, root_file: Path | None, fingerprints: tuple[str, ...]
) -> bytes:
    if (root_file is None) != (not fingerprints):
        raise click.UsageError("give --root and --fingerprint together")
    if root_file is None:
        return choose_root(trust, place, workspace)
    if trust is not None:
        raise click.UsageError("give either --trust or --root")
    return compare_root(root_file, fingerprints)


def _announce_pin(terminal: Terminal, place: Prefix, root: bytes, *, is_compared: bool) -> None:
    """Announce that this install pins a root; of a development root nobody has compared it with paper."""
    if not is_compared:
        check_first_root(place, root)
    if read_root(place) is not None:
        return
    parsed = parse_root(root, "named root")
    if parsed.profile:
        terminal.development()
    if is_compared:
        terminal.message(f"this install pins root version {parsed.version} on this host: it has the given fingerprints")
        return
    terminal.message("this install pins that root on this host; nobody has compared its fingerprint with paper:")
    for fingerprint in sorted(key.fingerprint for key in parsed.roles["root"].keys.values()):
        terminal.message(f"  {fingerprint}")


def _show(terminal: Terminal, done: InstallResult) -> None:
    release, bundle = done.release, done.release.bundle
    terminal.answer(f"{bundle.value.label}  manifest sha256:{bundle.value.manifest}")
    terminal.answer(f"release    {release.path}")
    terminal.answer(f"signed by  {', '.join(key.fingerprint for key in bundle.evidence.signers)}")
    terminal.answer(f"variant    {release.facts.cpu_variant}, {release.facts.tokens_per_s} tokens/s")
    terminal.answer(f"isolation  {release.facts.isolation}")
    terminal.answer(f"ansible    ok={done.played.ok} changed={done.played.changed}")
    if done.end == STAGED:
        terminal.answer("serves     nothing of it yet: it waits for the switch")
    elif release.prefix.is_system:
        gateway = json.loads((release.config / "gateway.json").read_bytes())
        url = format_url(gateway["bind"], gateway["port"], is_tls=bool(gateway.get("tls")))
        terminal.answer(f"serves at  {url}, key in {release.prefix.default_key}")
    else:
        terminal.answer(f"to serve   {_serve_command(release)}")
    terminal.answer(f"copied     {done.copied} of {len(release.contents.files)} files")
    if done.answer:
        terminal.answer(f"candidate  {' '.join(done.answer.split())[:100]}")
    terminal.answer(_end_line(done))
    terminal.message("  ".join(f"{took.step} {format_duration(took.seconds)}" for took in done.steps))


def _end_line(done: InstallResult) -> str:
    option = done.release.prefix.option
    if done.end == STAGED and done.was_current:
        return "serves already; nothing waits for a switch"
    if done.end == STAGED:
        return f"staged; to have it serve: appliance switch {done.release.path.name}{option}"
    if done.end == TRYING_NOW:
        return f"on trial: it is good after the time of health in site.yaml; see appliance status{option}"
    if not done.was_complete or done.answer:
        return "installed"
    return "was complete, nothing changed" if done.was_current else "it serves now; nothing had to be copied"


def _serve_command(release: Release) -> str:
    """What an ordinary user types: below a prefix there is no command `appliance` of its own."""
    words = [str(release.prefix.current / "venv/bin/python"), "-I", "-B", "-m", "appliance.cli.main", "serve"]
    return shlex.join(words) + release.prefix.option


def _answer(done: InstallResult) -> dict[str, Any]:
    release, bundle = done.release, done.release.bundle
    return {
        "name": bundle.value.contents.name,
        "version": bundle.value.contents.version,
        "manifest": bundle.value.manifest,
        "release": str(release.path),
        "signers": [key.fingerprint for key in bundle.evidence.signers],
        "development": bundle.evidence.is_development,
        "cpu_variant": release.facts.cpu_variant,
        "tokens_per_s": release.facts.tokens_per_s,
        "isolation": release.facts.isolation,
        "state": done.end,
        "was_complete": done.was_complete,
        "copied": done.copied,
        "ansible": {"ok": done.played.ok, "changed": done.played.changed},
        "candidate": done.answer,
        "steps": [{"step": took.step, "seconds": round(took.seconds, 3), "note": took.note} for took in done.steps],
        "warnings": list(done.warnings),
    }
