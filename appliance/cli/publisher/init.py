"""`appliance init`: make a publisher's workspace."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal
from appliance.cli.console.terminal import Terminal
from appliance.cli.publisher.sign import describe
from appliance.keys.ceremony import begin
from appliance.keys.signature_requests.request_text import explain, progress
from appliance.keys.signers.pem import load_public
from appliance.keys.workspace import create_development

_FILE = click.Path(dir_okay=False, path_type=Path)
_THRESHOLD = click.IntRange(1, 32)
_MUST_SIGN = 2
_HALF = "The public half of the key of a person who signs {}; once for each, 3 is usual."


@click.command("init")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--ceremony", is_flag=True, help="A real trust root: several people sign, each with a key of their own.")
@click.option("--root-key", "root_keys", metavar="FILE", multiple=True, type=_FILE, help=_HALF.format("roots"))
@click.option("--targets-key", "targets_keys", metavar="FILE", multiple=True, type=_FILE, help=_HALF.format("content"))
@click.option(
    "--root-threshold",
    metavar="N",
    default=_MUST_SIGN,
    show_default=True,
    type=_THRESHOLD,
    help="How many must sign a root.",
)
@click.option(
    "--targets-threshold",
    metavar="N",
    default=_MUST_SIGN,
    show_default=True,
    type=_THRESHOLD,
    help="How many must sign content.",
)
@json_option
@pass_terminal
def command(
    terminal: Terminal,
    folder: Path,
    ceremony: bool,
    root_keys: tuple[Path, ...],
    targets_keys: tuple[Path, ...],
    root_threshold: int,
    targets_threshold: int,
    as_json: bool,
) -> None:
    """Make a workspace: a trust root, its keys, and an empty repository.

    Without options the root is a development root: one key for each role, kept on this disk, and marked as such in
    every file that it signs. An existing workspace is left as it is. Keep it outside any repository of source files.

    With --ceremony the workspace holds one private key, the builder's, which signs no content. Each signer makes a key
    with `appliance key create` and hands over the .pub file. The new root waits in requests/root-1.json for signatures.

    \b
    Example:
      appliance init ~/appliance-workspace
      appliance init ~/appliance-workspace --ceremony --root-key alice.pub --root-key bob.pub --root-key carol.pub \\
          --targets-key dan.pub --targets-key eve.pub --targets-key frank.pub
    """
    if ceremony:
        _begin(terminal, folder, (root_keys, root_threshold), (targets_keys, targets_threshold), as_json)
        return
    if root_keys or targets_keys or (root_threshold, targets_threshold) != (_MUST_SIGN, _MUST_SIGN):
        raise click.UsageError("keys and thresholds are for --ceremony; a development root has one key for each role")
    workspace, is_new = create_development(folder, clock.utc_now())
    root = workspace.root()
    fingerprints = sorted(key.fingerprint for key in root.roles["root"].keys.values())
    terminal.development()
    terminal.message(f"{'made' if is_new else 'found'} the workspace {workspace.path}")
    if as_json:
        answer = {
            "workspace": str(workspace.path),
            "created": is_new,
            "profile": root.profile,
            "fingerprints": fingerprints,
        }
        terminal.answer_json(answer)
        return
    for fingerprint in fingerprints:
        terminal.answer(f"root key {fingerprint}")


def _begin(
    terminal: Terminal,
    folder: Path,
    root: tuple[tuple[Path, ...], int],
    targets: tuple[tuple[Path, ...], int],
    as_json: bool,
) -> None:
    root_keys, targets_keys = ([load_public(path) for path in paths] for paths, _ in (root, targets))
    workspace, request = begin(folder, (root_keys, root[1]), (targets_keys, targets[1]), clock.utc_now())
    path = workspace.requests / f"{request.label}.json"
    for line in explain(request):
        terminal.message(line)
    terminal.message(f"hint: give each signer a copy of {path}, who runs: appliance sign {path.name} --key FILE")
    if as_json:
        terminal.answer_json({"workspace": str(workspace.path), "file": str(path), **describe(request)})
        return
    for line in progress(request):
        terminal.answer(line)
