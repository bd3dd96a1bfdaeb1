"""`appliance trust override`: let one host or site install a bundle whose metadata have expired."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, workspace_option
from appliance.cli.console.terminal import Terminal
from appliance.cli.publisher.sign import describe, finished
from appliance.keys.ceremony import request_signatures
from appliance.keys.override_request import override_of
from appliance.keys.signature_requests.request_text import explain, progress
from appliance.keys.workspace import open_workspace


@click.command("override")
@click.argument("name")
@click.argument("version")
@click.option(
    "--host", metavar="SHA256", help="For one host: the fingerprint that `appliance trust show` prints there."
)
@click.option("--site", metavar="NAME", help="For the hosts of one site: the field `site` of their site.yaml.")
@click.option("--until", "last_day", metavar="DAY", required=True, help="The last day, as YYYY-MM-DD.")
@workspace_option
@json_option
@pass_terminal
def override(
    terminal: Terminal,
    name: str,
    version: str,
    host: str | None,
    site: str | None,
    last_day: str,
    workspace: Path,
    as_json: bool,
) -> None:
    """Request an expiry override: NAME VERSION may be installed at one place although its metadata have expired.

    As many people as must sign content sign it. It lifts the expiry of that bundle, at that host or site, up to its
    last day, and nothing else: a revoked bundle stays revoked. A newer stick is the better way, where one can be
    carried.

    \b
    Example:
      appliance trust override smollm2 1.0.0 --site north --until 2031-06-30 --workspace ~/appliance-workspace
    """
    if (host is None) == (site is None):
        raise click.UsageError("give either --host or --site")
    opened = open_workspace(workspace)
    with opened.locked():
        own = "".join((host or "").split()).replace(":", "").lower()
        asked = override_of(opened, name, version, own, site or "", last_day)
        request = request_signatures(opened, asked, clock.utc_now())
    for line in explain(request):
        terminal.message(line)
    path = opened.requests / f"{request.label}.json"
    if request.is_complete:
        terminal.message(finished(opened, request))
    else:
        terminal.message(f"hint: give each signer a copy of {path}, who runs: appliance sign {path.name} --key FILE")
    if as_json:
        terminal.answer_json({"file": None if request.is_complete else str(path), **describe(request)})
        return
    for line in progress(request):
        terminal.answer(line)
