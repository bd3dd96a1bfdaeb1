"""`appliance init`: make a publisher's workspace."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.options import json_option, pass_terminal
from appliance.cli.terminal import Terminal


@click.command("init")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@json_option
@pass_terminal
def command(terminal: Terminal, folder: Path, as_json: bool) -> None:
    """Make a workspace: a trust root, its keys, and an empty repository.

    The root is a development root: one key for each role, kept on this disk, and marked as such in every file that it
    signs. An existing workspace is left as it is. Keep it outside any repository of source files.

    \b
    Example:
      appliance init ~/appliance-workspace
    """
    from appliance.cli.clock import utc_now
    from appliance.keys.workspace import create_development

    workspace, is_new = create_development(folder, utc_now())
    root = workspace.root()
    fingerprints = sorted(key.fingerprint for key in root.roles["root"].keys.values())
    terminal.development()
    terminal.say(f"{'made' if is_new else 'found'} the workspace {workspace.path}")
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
