"""`appliance tls`: the site's certificates, made and renewed without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from appliance import clock
from appliance.cli.console.options import json_option, pass_terminal, prefix_option
from appliance.cli.console.terminal import Terminal
from appliance.events import TLS_CREATED, TLS_RENEWED, Event
from appliance.host.layout.prefix import Prefix
from appliance.host.process.journal import command_sink
from appliance.host.site.config import read_site
from appliance.host.tls.authority import (
    MAX_DAYS,
    USUAL_DAYS,
    AuthorityFolder,
    ServerNames,
    create_authority,
    issue_client,
    read_authority,
    renew_certificate,
)
from appliance.host.tls.expiry import ServedCertificate, read_served
from appliance.host.tls.files import TLS_FOLDER, CertificateFacts
from appliance.host.tls.key_owner import give_key
from bundles.report import shell_word
from signing.errors import HostUnfitError, UsageError

_names = click.option("--name", "names", multiple=True, help="A host name by which users reach it; give several.")
_addresses = click.option("--address", "addresses", multiple=True, help="An IP address likewise; give several.")
_days = click.option(
    "--days",
    type=click.IntRange(1, MAX_DAYS),
    default=USUAL_DAYS,
    show_default=True,
    help="How long the certificate is valid.",
)


@click.group("tls", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, renew or show the certificates of this site.

    \b
    Example:
      appliance tls create --name ai.example --address 192.0.2.7
    """


@command.command("create")
@_names
@_addresses
@_days
@prefix_option
@json_option
@pass_terminal
def create(
    terminal: Terminal,
    names: tuple[str, ...],
    addresses: tuple[str, ...],
    days: int,
    prefix: Path | None,
    as_json: bool,
) -> None:
    """Make an authority of this site, and a certificate for its gateway.

    Users trust the authority: give them its certificate, and its fingerprint on paper. Everything lies in
    /etc/appliance/tls. The gateway takes it when site.yaml names it.

    \b
    Example:
      appliance tls create --name ai.example --address 192.0.2.7
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    folder, wanted = _folder(host), ServerNames.check(names, addresses)
    with _writing(host):
        made = create_authority(folder, wanted, days, now)
        give_key(host, folder.key)
    _report(host, TLS_CREATED, made)
    authority = read_authority(folder)
    assert authority is not None  # it was made above
    if as_json:
        terminal.answer_json({"authority": _facts(folder.authority, authority), **_facts(folder.certificate, made)})
        return
    terminal.answer(f"authority    {folder.authority}")
    terminal.answer(f"  for users  sha256 {authority.sha256}")
    _show(terminal, folder.certificate, made)
    site = read_site(host.site_file)
    if site.tls is None:
        then = f"in place of bind, then: appliance config apply{host.option}"
        terminal.message(f"to serve with it, write into {host.site_file}, {then}")
        terminal.message("bind: 0.0.0.0")
        terminal.message(f"tls: {{certificate: {folder.certificate}, key: {folder.key}}}")


@command.command("renew")
@_names
@_addresses
@_days
@click.option("--new-key", is_flag=True, help="Make a new private key, too: the old one may be known to others.")
@prefix_option
@json_option
@pass_terminal
def renew(
    terminal: Terminal,
    names: tuple[str, ...],
    addresses: tuple[str, ...],
    days: int,
    new_key: bool,
    prefix: Path | None,
    as_json: bool,
) -> None:
    """Make a new certificate for the gateway, of the same authority.

    It has the names of the one before; with --name or --address, those alone. The gateway takes it within seconds, and
    no stream ends.

    \b
    Example:
      appliance tls renew
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    folder = _folder(host)
    wanted = ServerNames.check(names, addresses) if names or addresses else None
    with _writing(host):
        made = renew_certificate(folder, wanted, days, now, new_key=new_key)
        give_key(host, folder.key)
    _report(host, TLS_RENEWED, made)
    if as_json:
        terminal.answer_json(_facts(folder.certificate, made))
        return
    _show(terminal, folder.certificate, made)


@command.command("show")
@prefix_option
@json_option
@pass_terminal
def show(terminal: Terminal, prefix: Path | None, as_json: bool) -> None:
    """Show the certificate that the gateway serves with, and until when.

    With the fingerprint of the site's authority, by which users check what they were given.

    \b
    Example:
      appliance tls show
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    folder, site = _folder(host), read_site(host.site_file)
    served = read_served(site.tls, now) if site.tls is not None else None
    authority = read_authority(folder)
    if as_json:
        terminal.answer_json(_shown(served, folder, authority))
        return
    if served is None:
        terminal.answer(f"the gateway speaks plain http: {host.site_file} has no field tls")
    else:
        _show(terminal, Path(served.path), served.facts)
        terminal.answer(f"  left       {served.days_left} days")
    if authority is None:
        terminal.answer("authority    none was made here")
    else:
        terminal.answer(f"authority    {folder.authority}, until {_moment(authority.ends)}")
        terminal.answer(f"  for users  sha256 {authority.sha256}")


@command.command("client")
@click.argument("name", metavar="NAME")
@_days
@prefix_option
@json_option
@pass_terminal
def client(terminal: Terminal, name: str, days: int, prefix: Path | None, as_json: bool) -> None:
    """Make a certificate by which the person NAME connects.

    It is needed where site.yaml has `client_ca`, beside the person's key. Hand over both files, then remove them here.

    \b
    Example:
      appliance tls client ada
    """
    host, now = Prefix.at(prefix or Path("/")), clock.utc_now()
    with _writing(host):
        certificate, key, facts = issue_client(_folder(host), name, days, now)
    if as_json:
        terminal.answer_json({**_facts(certificate, facts), "key": str(key)})
        return
    terminal.answer(f"certificate  {certificate}, until {_moment(facts.ends)}")
    terminal.answer(f"key          {key}")


def _folder(host: Prefix) -> AuthorityFolder:
    return AuthorityFolder(host.etc / TLS_FOLDER)


@contextmanager
def _writing(host: Prefix) -> Iterator[None]:
    if host.is_system and os.geteuid() != 0:
        raise HostUnfitError("host.unfit", "user", expected="root", found="another user", hint="run it with sudo")
    try:
        yield
    except OSError as error:
        where = shell_word(str(error.filename or host.etc), "FILE")
        hint = "run it with sudo" if isinstance(error, PermissionError) else "look at the disk: df -h"
        raise UsageError(
            "tls.unwritable", where, expected="a file that can be written", found=error.strerror or "", hint=hint
        ) from None


def _report(host: Prefix, kind: str, made: CertificateFacts) -> None:
    sink = command_sink(is_system=host.is_system)
    sink(Event(kind, {"certificate": made.sha256, "until": _moment(made.ends)}))


def _show(terminal: Terminal, path: Path, facts: CertificateFacts) -> None:
    terminal.answer(f"certificate  {path}")
    terminal.answer(f"  for        {', '.join((*facts.names, *facts.addresses))}")
    terminal.answer(f"  until      {_moment(facts.ends)}")
    terminal.answer(f"  sha256     {facts.sha256}")


def _facts(path: Path, facts: CertificateFacts) -> dict[str, Any]:
    names = {"names": list(facts.names), "addresses": list(facts.addresses)}
    times = {"begins": _moment(facts.begins), "ends": _moment(facts.ends)}
    return {"certificate": str(path), **names, **times, "sha256": facts.sha256}


def _shown(
    served: ServedCertificate | None, folder: AuthorityFolder, authority: CertificateFacts | None
) -> dict[str, Any]:
    value: dict[str, Any] = {"serves": None, "authority": None}
    if served is not None:
        value["serves"] = {**_facts(Path(served.path), served.facts), "days_left": served.days_left}
    if authority is not None:
        value["authority"] = _facts(folder.authority, authority)
    return value


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
