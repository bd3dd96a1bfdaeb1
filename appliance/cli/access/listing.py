"""`appliance access list` and `show`: the keys that were granted."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli.access.usage import read_usage
from appliance.cli.access.values import (
    describe,
    format_models,
    format_quotas,
    format_time,
    open_host,
    read_key,
    state_of,
)
from appliance.cli.console.columns import labelled
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage import UsageCounts


@click.command("list")
@click.option("--all", "shows_all", is_flag=True, help="Show revoked and expired keys, too.")
@prefix_option
@json_option
@pass_terminal
def listing(terminal: Terminal, shows_all: bool, prefix: Path | None, as_json: bool) -> None:
    """List the keys that count, with their rights and limits.

    \b
    Example:
      appliance access list --all
    """
    host, now = open_host(prefix), clock.utc_now()
    keys = AccessStore(host.access).list()
    keys = tuple(key for key in keys if shows_all or key.is_valid(now))
    if as_json:
        terminal.answer_json([describe(key, now) for key in keys])
        return
    rows = [
        (
            key.name,
            f"ak-{key.id}",
            state_of(key, now),
            key.rights.role,
            format_models(key.models),
            format_quotas(key) or "-",
            "never" if key.expires is None else f"{key.expires:%Y-%m-%d}",
        )
        for key in keys
    ]
    terminal.table(("name", "key", "state", "role", "models", "limits", "ends"), rows)


@click.command("show")
@click.argument("name", metavar="NAME")
@prefix_option
@json_option
@pass_terminal
def show(terminal: Terminal, name: str, prefix: Path | None, as_json: bool) -> None:
    """Show the key of NAME: its rights, its limits, and what it used today.

    \b
    Example:
      appliance access show ann
    """
    host, now = open_host(prefix), clock.utc_now()
    key = read_key(AccessStore(host.access), name)
    rows = [row.counts for row in read_usage(host, now.date()) if row.account == key.account]
    used = rows[0] if rows else UsageCounts()
    if as_json:
        today = {"tokens_in": used.tokens_in, "tokens_out": used.tokens_out, "requests": used.requests}
        terminal.answer_json({**describe(key, now), "today": today})
        return
    lines = [
        *labelled("name", key.name),
        *labelled("key", f"ak-{key.id}, {state_of(key, now)}"),
        *labelled("role", key.rights.role),
        *labelled("models", format_models(key.models)),
        *labelled("limits", format_quotas(key) or "none"),
        *labelled("granted", "unknown" if key.created is None else format_time(key.created)),
        *labelled("ends", "never" if key.expires is None else format_time(key.expires)),
        *labelled("today", f"{used.tokens_in} tokens in, {used.tokens_out} out, {used.requests} requests"),
    ]
    if not key.rights.is_enforced:
        lines += labelled("note", "it has a restriction that this version does not know, and may do nothing")
    for line in lines:
        terminal.answer(line)
