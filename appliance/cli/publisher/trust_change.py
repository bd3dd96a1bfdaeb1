"""`appliance trust rotate` and `revoke`: change who signs, and revoke what was signed."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, workspace_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.publisher.sign import describe, report_removed
from appliance.keys.publication import revoke as revoke_bundle
from appliance.keys.rotation import Change
from appliance.keys.rotation import rotate as request_root
from appliance.keys.signature_requests.request import Request
from appliance.keys.signature_requests.request_text import explain, progress
from appliance.keys.signers.pem import load_public
from appliance.keys.workspace import Workspace, open_workspace

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("rotate")
@click.option(
    "--remove", metavar="SHA256", multiple=True, help="Rotate out the key with this fingerprint, in every role."
)
@click.option(
    "--add-root-key",
    "add_root",
    metavar="FILE",
    multiple=True,
    type=_FILE,
    help="The public half of a key that signs roots from now on.",
)
@click.option(
    "--add-targets-key",
    "add_targets",
    metavar="FILE",
    multiple=True,
    type=_FILE,
    help="The public half of a key that signs content from now on.",
)
@click.option(
    "--root-threshold", metavar="N", type=click.IntRange(1, 32), help="How many must sign a root from now on."
)
@click.option(
    "--targets-threshold", metavar="N", type=click.IntRange(1, 32), help="How many must sign content from now on."
)
@click.option("--new-builder-key", is_flag=True, help="Make a new key for snapshot and timestamp.")
@workspace_option
@json_option
@pass_terminal
def rotate(
    terminal: Terminal,
    remove: tuple[str, ...],
    add_root: tuple[Path, ...],
    add_targets: tuple[Path, ...],
    root_threshold: int | None,
    targets_threshold: int | None,
    new_builder_key: bool,
    workspace: Path,
    as_json: bool,
) -> None:
    """Request the next trust root: other keys, other thresholds, or, without options, a later expiry.

    The thresholds of the old root and of the new one must sign it. Hosts then follow with the next stick.

    \b
    Example:
      appliance trust rotate --remove 3fe1a0c2 --add-targets-key grace.pub --workspace ~/appliance-workspace
    """
    change = Change(
        remove=remove,
        add_root=tuple(load_public(path) for path in add_root),
        add_targets=tuple(load_public(path) for path in add_targets),
        root_threshold=root_threshold,
        targets_threshold=targets_threshold,
        new_builder=new_builder_key,
    )
    _rotate(terminal, open_workspace(workspace), change, as_json)


@click.command("revoke")
@click.argument("bundle", metavar="[NAME VERSION]", nargs=-1)
@click.option(
    "--key", metavar="SHA256", help="Revoke the key with this fingerprint: somebody else has it, or may have it."
)
@click.option("--replace-by", metavar="FILE", type=_FILE, help="The public half of the key that takes its place.")
@workspace_option
@json_option
@pass_terminal
def revoke(
    terminal: Terminal,
    bundle: tuple[str, ...],
    key: str | None,
    replace_by: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Revoke a published bundle, by NAME and VERSION, or a key.

    A revocation is never taken back. A host refuses a revoked bundle as soon as a stick brings newer metadata. Revoking
    a key requests the next root. From then on a host refuses every signature of that key. A key whose holder left is
    rotated out instead, with `appliance trust rotate --remove`: what it signed stays valid, and counts no more.

    \b
    Example:
      appliance trust revoke smollm2 1.0.0 --workspace ~/appliance-workspace
      appliance trust revoke --key 3fe1a0c2 --replace-by grace.pub --workspace ~/appliance-workspace
    """
    if bool(bundle) == bool(key) or (bundle and (len(bundle) != 2 or replace_by)):
        raise click.UsageError("give NAME and VERSION of a bundle, or --key")
    opened = open_workspace(workspace)
    if key is not None:
        change = Change(revoke=(key,), replace_by=load_public(replace_by) if replace_by else None)
        _rotate(terminal, opened, change, as_json)
        return
    with opened.locked():
        request = revoke_bundle(opened, bundle[0], bundle[1], clock.utc_now())
        if request is not None:
            _report(terminal, opened, request, as_json)
            return
    terminal.message(f"{' '.join(bundle)} was revoked already")
    if as_json:
        terminal.answer_json({"request": None, "complete": True})


def _rotate(terminal: Terminal, workspace: Workspace, change: Change, as_json: bool) -> None:
    with workspace.locked():
        _report(terminal, workspace, request_root(workspace, change, clock.utc_now()), as_json)


def _report(terminal: Terminal, workspace: Workspace, request: Request, as_json: bool) -> None:
    # `appliance trust pin` loads this module on hosts, which need nothing of the builder's part of the program.
    from appliance.builder.assembly.signature_refresh import refresh_signatures

    refreshed = refresh_signatures(workspace, request, clock.utc_now())
    bundles = refreshed.bundles
    path = workspace.requests / f"{request.label}.json"
    for line in explain(request):
        terminal.message(line)
    report_removed(terminal, refreshed.removed)
    if request.is_complete:
        terminal.message(f"in force: {request.label}, and in {len(bundles)} bundles in {workspace.dist}")
    else:
        terminal.message(f"hint: give each signer a copy of {path}, who runs: appliance sign {path.name} --key FILE")
    if as_json:
        terminal.answer_json({"file": None if request.is_complete else str(path), **describe(request, bundles)})
        return
    for line in progress(request):
        terminal.answer(line)
