"""`appliance access rotate` and `revoke`: the end of a key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from appliance import clock
from appliance.cli.access.grant import answer_key
from appliance.cli.access.values import open_host, parse_end, parse_span, read_key, report
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.events import ACCESS_REVOKED, ACCESS_ROTATED
from appliance.host.site.api_keys import AccessStore


@click.command("rotate")
@click.argument("name", metavar="NAME")
@click.option("--overlap", metavar="SPAN", help="The old key still counts for this long: 90m, 12h or 2d.")
@click.option("--expires", metavar="WHEN", help="When the new key ends; without this, when the old one was to end.")
@prefix_option
@json_option
@pass_terminal
def rotate(
    terminal: Terminal, name: str, overlap: str | None, expires: str | None, prefix: Path | None, as_json: bool
) -> None:
    """Replace the key of NAME by a new one, and print that, once.

    Name, rights, limits and the usage of the day stay. The old key ends at once, with the answers that it began, unless
    --overlap is given.

    \b
    Example:
      appliance access rotate ann --overlap 12h
    """
    host, now = open_host(prefix), clock.utc_now()
    span = timedelta(0) if overlap is None else parse_span(overlap, "--overlap")
    end = None if expires is None else parse_end(expires, now)
    store = AccessStore(host.access)
    former = read_key(store, name)
    secret = store.rotate(name, now, overlap=span, expires=end)
    key = read_key(store, name)
    report(host, ACCESS_ROTATED, key, former=former.id, seconds=int(span.total_seconds()))
    answer_key(terminal, key, secret, as_json=as_json, what="rotated")


@click.command("revoke")
@click.argument("name", metavar="NAME")
@prefix_option
@json_option
@pass_terminal
def revoke(terminal: Terminal, name: str, prefix: Path | None, as_json: bool) -> None:
    """End the key of NAME for good, and every older one of the same name.

    It counts within a second, also for answers that are being written: they end with an error. To revoke a key twice
    changes nothing more.

    \b
    Example:
      appliance access revoke ann
    """
    host, now = open_host(prefix), clock.utc_now()
    store = AccessStore(host.access)
    key = read_key(store, name)
    is_new = store.revoke(name, now)
    if is_new:
        report(host, ACCESS_REVOKED, key)
    if as_json:
        terminal.answer_json({"name": name, "id": key.id, "was_revoked_before": not is_new})
        return
    terminal.answer(f"revoked {name}" if is_new else f"{name} was revoked before")
