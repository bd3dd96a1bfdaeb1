"""`appliance gc`: free the space of what a host does not need."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.install.hand_over import remove_unused_sets
from appliance.host.layout.install_lock import hold
from appliance.host.layout.prefix import Prefix
from appliance.host.maintenance.cleanup import clean_up
from appliance.host.maintenance.garbage import Garbage, disk_bytes, find_garbage
from appliance.host.maintenance.pins import pin, unpin
from appliance.host.release.release import open_current
from appliance.host.site.config import read_site
from bundles.bootstrap_set import bootstrap_root
from bundles.report import format_size
from signing.errors import ApplianceError, BusyError, worst


@click.command("gc")
@prefix_option
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option("--pin", "pinned", metavar="RELEASE", help="Keep this release from now on; nothing is removed.")
@click.option("--unpin", "unpinned", metavar="RELEASE", help="Take a pin away; nothing is removed.")
@json_option
@pass_terminal
def command(
    terminal: Terminal, prefix: Path | None, dry_run: bool, pinned: str | None, unpinned: str | None, as_json: bool
) -> None:
    """Remove releases and models that this host does not need.

    The release that serves stays, the one to return to, pinned and staged ones, and what an unfinished change names. Of
    the others, the newest stay: as many as `keep` in site.yaml states, with the one to return to. Models stay while a
    release that stays names them. It works on a full disk, too. The names of releases are those of the folders in
    /opt/appliance/releases.

    \b
    Example:
      appliance gc --dry-run
      appliance gc --pin 1.0.0-0123456789ab
    """
    host = Prefix.at(prefix or Path("/"))
    if pinned or unpinned:
        _set_pins(terminal, host, pinned, unpinned, as_json=as_json)
        return
    keep = read_site(host.site_file).keep
    faults: list[ApplianceError] = []
    if dry_run:
        found = find_garbage(host, keep)
        faults += found.faults
    else:
        with terminal.progress() as on_progress:
            found = clean_up(host, keep, clock.utc_now, on_progress)
        found = replace(found, size_bytes=found.size_bytes + _remove_sets(terminal, host))
    if as_json:
        terminal.answer_json(_answer(found, dry_run=dry_run))
    else:
        _show(terminal, found, dry_run=dry_run)
    if faults:
        raise worst(faults)


def _set_pins(terminal: Terminal, host: Prefix, pinned: str | None, unpinned: str | None, *, as_json: bool) -> None:
    # Where nothing was ever installed there is no lock, and no release to pin either.
    with hold(host) if host.journal.is_dir() else nullcontext():
        if pinned:
            pin(host, pinned)
        if unpinned:
            unpin(host, unpinned)
    if as_json:
        terminal.answer_json({"pinned": pinned, "unpinned": unpinned})
        return
    for verb, name in (("pinned", pinned), ("unpinned", unpinned)):
        if name:
            terminal.answer(f"{verb:<9}  {name}")


def _remove_sets(terminal: Terminal, host: Prefix) -> int:
    """Remove the programs of earlier installs; returns the bytes that they took."""
    before = disk_bytes(bootstrap_root(host.root))
    try:
        remove_unused_sets(host, open_current(host, clock.utc_now()).bundle.value.manifest)
    except BusyError as error:
        terminal.message(f"warning: programs of earlier installs stay: {error}")
    except ApplianceError as error:
        # Which set repairs this host is not known while its release cannot be opened.
        terminal.message(f"warning: programs of earlier installs stay: the release that serves is not right ({error})")
    return max(before - disk_bytes(bootstrap_root(host.root)), 0)


def _show(terminal: Terminal, found: Garbage, *, dry_run: bool) -> None:
    for one in found.kept:
        terminal.answer(f"keeps      {one.path.name}  {one.reason}")
    verb = "would go" if dry_run else "removed"
    for kind, paths in (("release", found.releases), ("model", found.models), ("leftover", found.leftovers)):
        for path in paths:
            terminal.answer(f"{verb:<9}  {kind} {path.name}")
    terminal.answer(f"{'would free' if dry_run else 'freed':<9}  {format_size(found.size_bytes)}")


def _answer(found: Garbage, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "kept": [{"release": one.path.name, "reason": one.reason} for one in found.kept],
        "releases": [path.name for path in found.releases],
        "models": [path.name for path in found.models],
        "leftovers": [path.name for path in found.leftovers],
        "bytes": found.size_bytes,
    }
