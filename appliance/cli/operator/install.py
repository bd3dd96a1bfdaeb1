"""`appliance install`: from a stick to a release that serves."""

from __future__ import annotations

import json
import os
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
from appliance.cli.operator.host_card import run_tool
from appliance.host.install.install import InstallResult, install
from appliance.host.install.install_inputs import Host
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.probe import probe_essentials
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.root_pin import check_first_root
from appliance.host.trust.trust_store import read_root
from bundles.attestation.dsse import MAX_ENVELOPE_BYTES
from signing.chain import read_root as parse_root


@click.command("install")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@prefix_option
@trust_option
@named_workspace_option
@click.option(
    "--override",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An expiry override that the people who sign content made for this bundle and this host or site.",
)
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    source: Path,
    prefix: Path | None,
    trust: Path | None,
    workspace: Path | None,
    override: Path | None,
    as_json: bool,
) -> None:
    """Install the bundle at SOURCE on this host, or finish or repair it.

    SOURCE is a stick or a bundle's folder. Its signatures are verified before anything is written, and every byte while
    it is copied; nothing of it runs before that. The release before serves until the new one has answered. No network
    is needed. After an interruption or damage run it again: it continues where it stopped, and repairs what differs. It
    then reads from SOURCE only what is missing here.

    The trust root must have been pinned with `appliance trust pin`. Only a development root, which is for trials, is
    pinned by the first install that names it.

    As root, on a machine with systemd, it installs services that start at every boot. With --prefix it needs neither:
    everything lies in one folder, and `appliance serve` serves it in the foreground.

    \b
    Example:
      appliance install /media/stick
      appliance install /media/stick --prefix /srv/appliance
    """
    place = Prefix.at(prefix or Path("/"))
    root = choose_root(trust, place, workspace)
    _announce_pin(terminal, place, root)
    card = probe_essentials(clock.utc_now(), run_tool)
    host = Host(
        place,
        card,
        clock.utc_now,
        os.environ.get("PATH", ""),
        is_root=os.geteuid() == 0,
        override=_read_override(override),
    )
    with terminal.progress() as on_progress:
        done = install(source, root, host, on_progress)
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


def _announce_pin(terminal: Terminal, place: Prefix, root: bytes) -> None:
    """Announce that this install pins a development root, which nobody has compared with paper."""
    check_first_root(place, root)
    if read_root(place) is None:
        keys = parse_root(root, "named root").roles["root"].keys.values()
        terminal.development()
        terminal.message("this install pins that root on this host; nobody has compared its fingerprint with paper:")
        for fingerprint in sorted(key.fingerprint for key in keys):
            terminal.message(f"  {fingerprint}")


def _show(terminal: Terminal, done: InstallResult) -> None:
    release, bundle = done.release, done.release.bundle
    terminal.answer(f"{bundle.value.label}  manifest sha256:{bundle.value.manifest}")
    terminal.answer(f"release    {release.path}")
    terminal.answer(f"signed by  {', '.join(key.fingerprint for key in bundle.evidence.signers)}")
    terminal.answer(f"variant    {release.facts.cpu_variant}, {release.facts.tokens_per_s} tokens/s")
    terminal.answer(f"isolation  {release.facts.isolation}")
    terminal.answer(f"ansible    ok={done.played.ok} changed={done.played.changed}")
    if release.prefix.is_system:
        gateway = json.loads((release.config / "gateway.json").read_bytes())
        terminal.answer(f"serves at  http://{gateway['bind']}:{gateway['port']}, key in {release.prefix.default_key}")
    terminal.answer(f"copied     {done.copied} of {len(release.contents.files)} files")
    if done.answer:
        terminal.answer(f"candidate  {' '.join(done.answer.split())[:100]}")
    terminal.answer("was complete, nothing changed" if done.was_complete and not done.answer else "installed")
    terminal.message("  ".join(f"{took.step} {format_duration(took.seconds)}" for took in done.steps))


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
        "was_complete": done.was_complete,
        "copied": done.copied,
        "ansible": {"ok": done.played.ok, "changed": done.played.changed},
        "candidate": done.answer,
        "steps": [{"step": took.step, "seconds": round(took.seconds, 3), "note": took.note} for took in done.steps],
        "warnings": list(done.warnings),
    }
