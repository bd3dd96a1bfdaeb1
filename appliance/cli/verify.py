"""`appliance verify`: the signature verification command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.options import json_option, named_workspace_option, pass_terminal, prefix_option, trust_option
from appliance.cli.terminal import Terminal

if TYPE_CHECKING:
    from bundles.bundle import Bundle
    from signing.verified import Verified


@click.command("verify")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@trust_option
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    path: Path | None,
    trust: Path | None,
    prefix: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Verify signatures and every byte of PATH: a bundle or a stick; without PATH, the installed release of --prefix.

    Exit 0: everything is what was signed. 3: damaged, copy it again. 4: not trusted, stop and ask a key holder.

    \b
    Example:
      appliance verify /media/stick --workspace ~/appliance-workspace
      appliance verify /media/stick --prefix /srv/appliance
      appliance verify --prefix /srv/appliance
    """
    from bundles.report import clock_warning, describe, lines

    found, checked = (
        _verify_installed(terminal, prefix or Path("/"))
        if path is None
        else _verify_bundle(terminal, path, trust, prefix, workspace)
    )
    answer = {**describe(found), **checked}
    if found.evidence.is_development:
        terminal.development()
    if warning := clock_warning(found):
        terminal.say(warning)
    if as_json:
        terminal.answer_json(answer)
        return
    for line in lines(answer):
        terminal.answer(line)


def _verify_bundle(
    terminal: Terminal, path: Path, trust: Path | None, prefix: Path | None, workspace: Path | None
) -> tuple[Verified[Bundle], dict[str, object]]:
    from appliance.cli.clock import utc_now
    from appliance.host.floorstore import read_floors, read_root
    from appliance.host.pinned import choose_root
    from appliance.host.prefix import Prefix
    from bundles.bundle import open_bundle
    from bundles.check import check_all
    from bundles.layout import Layout
    from bundles.report import describe_boot
    from signing.floors import Floors

    host = Prefix.at(prefix or Path("/"))
    root = choose_root(trust, host, workspace)
    # Floors belong to the root that this host has pinned; another publisher has versions of its own.
    floors = read_floors(host) if root == read_root(host) else Floors()
    found = open_bundle(path, root, floors, utc_now())
    with terminal.progress() as on_progress:
        checked, boot = check_all(Layout(path), found, on_progress)
    return found, {
        "path": str(path),
        "files": checked.files,
        "blobs": checked.blobs,
        "bytes": checked.size_bytes,
        "boot": describe_boot(found, boot),
    }


def _verify_installed(terminal: Terminal, prefix: Path) -> tuple[Verified[Bundle], dict[str, object]]:
    from appliance.cli.clock import utc_now
    from appliance.host.prefix import Prefix
    from appliance.host.release import check_release, open_current

    release = open_current(Prefix.at(prefix), utc_now())
    with terminal.progress() as on_progress:
        check_release(release, on_progress)
    contents = release.contents
    return release.bundle, {"path": str(release.path), "files": len(contents.files), "bytes": contents.size_bytes}
