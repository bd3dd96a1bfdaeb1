"""`appliance access usage`: what each key has used, by day."""

from __future__ import annotations

import sqlite3
from datetime import date, timedelta
from pathlib import Path

import click

from appliance import clock
from appliance.cli.access.values import open_host, read_key
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.site.api_keys import AccessStore
from appliance.serve.callers.usage import UsageRow
from appliance.serve.callers.usage_file import KEPT_DAYS, USAGE_FILE, UsageFile
from signing.errors import DamagedError

GONE = "(unknown)"
"""For an account whose key is not in the list: the keys were restored or lost."""


@click.command("usage")
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--days",
    type=click.IntRange(1, KEPT_DAYS),
    default=7,
    show_default=True,
    metavar="N",
    help="How many days to show.",
)
@prefix_option
@json_option
@pass_terminal
def usage(terminal: Terminal, name: str | None, days: int, prefix: Path | None, as_json: bool) -> None:
    """Show the tokens and requests of each key, or of NAME, by day of UTC.

    The gateway writes them every few seconds. Keys that follow one another by `rotate` count as one.

    \b
    Example:
      appliance access usage ann --days 31
    """
    host, today = open_host(prefix), clock.utc_now().date()
    store = AccessStore(host.access)
    wanted = None if name is None else read_key(store, name).account
    # Of an account the newest key has the owner's name; a rotation has added ids to the names of the others.
    keys = sorted(store.list(), key=lambda key: not key.name.endswith(f"-{key.id}"))
    names = {key.account: key.name for key in keys}
    rows = [
        row for row in read_usage(host, today - timedelta(days=days - 1)) if wanted is None or row.account == wanted
    ]
    if as_json:
        terminal.answer_json(
            [
                {
                    "day": row.day.isoformat(),
                    "name": names.get(row.account),
                    "account": row.account,
                    "tokens_in": row.counts.tokens_in,
                    "tokens_out": row.counts.tokens_out,
                    "requests": row.counts.requests,
                }
                for row in rows
            ]
        )
        return
    shown = [
        (row.day, names.get(row.account, GONE), row.counts.tokens_in, row.counts.tokens_out, row.counts.requests)
        for row in rows
    ]
    if not shown:
        terminal.message("nothing was used in these days")
        return
    terminal.table(("day", "name", "tokens in", "tokens out", "requests"), shown)


def read_usage(host: Prefix, since: date) -> tuple[UsageRow, ...]:
    """Read the usage of a host since a day.

    Raises:
        DamagedError: the file is no database of usage.
    """
    path = host.gateway_state / USAGE_FILE
    try:
        return UsageFile(path).read(since)
    except sqlite3.Error as error:
        raise DamagedError(
            "usage.damaged",
            str(path),
            expected="the usage that the gateway has written",
            found=str(error),
            hint="run it again; a gateway that runs puts a damaged file aside, and goes on counting",
        ) from error
