"""`appliance access grant`: a key for a person or a program."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from appliance import clock
from appliance.cli.access.values import describe, format_models, format_quotas, open_host, parse_end, read_key, report
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.events import ACCESS_GRANTED
from appliance.host.layout.prefix import Prefix
from appliance.host.release.release import open_current
from appliance.host.site.api_keys import AccessStore, Key
from appliance.host.site.rights import CONCURRENCY, MAX_PRIORITY, TOKENS_PER_DAY, Rights, Role
from signing.errors import UsageError

MAX_TOKENS, MAX_CONCURRENCY = 10**12, 1024


@click.command("grant")
@click.argument("name", metavar="NAME")
@click.option("--models", metavar="A,B", help="The models that it may use; all without this.")
@click.option(
    "--tokens-per-day",
    "tokens",
    type=click.IntRange(1, MAX_TOKENS),
    metavar="N",
    help="Tokens of prompts and answers, from midnight to midnight UTC.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    metavar="N",
    help="Pieces of work that an engine does at once; the others wait.",
)
@click.option("--expires", metavar="WHEN", help="When it ends: 2030-12-31 (as that day begins in UTC), 12h or 30d.")
@click.option(
    "--priority",
    type=click.IntRange(0, MAX_PRIORITY),
    default=0,
    show_default=True,
    metavar="N",
    help="N + 1 shares of a busy engine; others have one.",
)
@click.option(
    "--role",
    type=click.Choice(get_args(Role)),
    default="user",
    show_default=True,
    help="A user chats; an auditor reads usage and does not chat; an operator does both.",
)
@prefix_option
@json_option
@pass_terminal
def grant(
    terminal: Terminal,
    name: str,
    models: str | None,
    tokens: int | None,
    concurrency: int | None,
    expires: str | None,
    priority: int,
    role: Role,
    prefix: Path | None,
    as_json: bool,
) -> None:
    """Make a key for NAME and print it, once.

    The host stores its SHA-256 alone, so nobody can show the key again. It counts at once, for a gateway that runs and
    for later ones. A name is used once: to give the same person another key, use `rotate`.

    \b
    Example:
      appliance access grant ann --models tiny --tokens-per-day 200000 --expires 90d
    """
    host, now = open_host(prefix), clock.utc_now()
    quotas = {TOKENS_PER_DAY: tokens, CONCURRENCY: concurrency}
    rights = Rights(
        role=role, quotas={which: limit for which, limit in quotas.items() if limit is not None}, priority=priority
    )
    end = None if expires is None else parse_end(expires, now)
    allowed = None if models is None else _check_models(host, models)
    store = AccessStore(host.access)
    secret = store.grant(name, now, models=allowed, expires=end, rights=rights)
    key = read_key(store, name)
    report(host, ACCESS_GRANTED, key, **_event_fields(key))
    answer_key(terminal, key, secret, as_json=as_json, what="granted")


def answer_key(terminal: Terminal, key: Key, secret: str, *, as_json: bool, what: str) -> None:
    """Print a new key, the only time that it is shown.

    Args:
        terminal: gets the key as the answer, and the rest as messages.
        key: its entry.
        secret: the key itself.
        as_json: for programs.
        what: was done, in a word.
    """
    if as_json:
        terminal.answer_json({**describe(key, clock.utc_now()), "key": secret})
        return
    limits = f"; {format_quotas(key)}" if format_quotas(key) else ""
    end = f" until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else ""
    terminal.message(f"{what} {key.name}: {key.rights.role}, {format_models(key.models)}{limits}{end}")
    terminal.message("this key is shown once, and stored nowhere:")
    terminal.answer(secret)


def _check_models(host: Prefix, text: str) -> frozenset[str]:
    wanted = frozenset(filter(None, (name.strip() for name in text.split(","))))
    known = [model.name for model in open_current(host, clock.utc_now()).contents.models]
    unknown = sorted(wanted - set(known))
    if unknown or not wanted:
        raise UsageError(
            "access.model",
            "--models",
            expected=f"names of installed models: {', '.join(sorted(known))}",
            found=", ".join(unknown)[:200] or "none",
            hint="give the names as 'appliance status' shows them, with commas between",
        )
    return wanted


def _event_fields(key: Key) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"role": key.rights.role, "priority": key.rights.priority}
    if key.models is not None:
        fields["models"] = ",".join(sorted(key.models))[:512]
    if key.rights.quotas:
        fields["quotas"] = ",".join(f"{name}={limit}" for name, limit in sorted(key.rights.quotas.items()))
    if key.expires is not None:
        fields["expires"] = f"{key.expires:%Y-%m-%dT%H:%M:%SZ}"
    return fields
