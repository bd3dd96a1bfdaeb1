"""`appliance build`: from a recipe to a signed bundle."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance.cli.options import json_option, pass_terminal, workspace_option
from appliance.cli.terminal import Terminal


@click.command("build")
@click.argument("recipe", type=click.Path(path_type=Path))
@workspace_option
@json_option
@pass_terminal
def command(terminal: Terminal, recipe: Path, workspace: Path, as_json: bool) -> None:
    """Build the bundle of RECIPE and sign it.

    Everything comes from the lock beside the recipe, by size and sha256; what is not in it does not go in. The first
    build compiles the runtime, which takes about ten minutes on two cores; it is cached, and so is every download.
    The bundle is written to dist/NAME-VERSION in the workspace.

    \b
    Example:
      appliance build bundles/recipes/smollm2.yaml --workspace ~/appliance-workspace
    """
    from appliance.build.assemble import assemble
    from appliance.build.cache import Cache, cache_root
    from appliance.cli.clock import utc_now
    from appliance.keys.workspace import open_workspace

    opened = open_workspace(workspace)
    with terminal.progress() as on_progress:
        built = assemble(recipe, opened, Cache(cache_root(os.environ)), utc_now(), on_progress)
    bundle = built.bundle.value
    if built.bundle.evidence.is_development:
        terminal.development()
    if built.replaced is not None:
        terminal.say(
            f"warning: {bundle.label} was published before as sha256:{built.replaced}; a host that runs that one will "
            "not open it beside the new metadata. Give every change a version of its own"
        )
    answer = {
        "bundle": str(built.path),
        "manifest": bundle.manifest,
        "name": bundle.contents.name,
        "version": bundle.contents.version,
        "files": len(bundle.contents.files),
        "bytes": bundle.contents.size_bytes,
        "files_written": built.files_written,
    }
    if as_json:
        terminal.answer_json(answer)
        return
    terminal.answer(f"{bundle.label}  manifest sha256:{bundle.manifest}")
    terminal.answer(f"{len(bundle.contents.files)} files, {bundle.contents.size_bytes} bytes in {built.path}")
    terminal.say("nothing had to be written" if not built.files_written else f"{built.files_written} files written")
