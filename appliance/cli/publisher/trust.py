"""`appliance trust`: show, pin or change who may sign."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.options import (
    json_option,
    named_workspace_option,
    pass_terminal,
    prefix_option,
    trust_option,
)
from appliance.cli.console.terminal import Terminal
from appliance.cli.publisher.trust_change import revoke, rotate
from appliance.cli.publisher.trust_override import override
from appliance.cli.publisher.trust_sheet import sheet
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.root_choice import choose_root
from appliance.host.trust.root_pin import pin_root
from appliance.keys.signers.host_key import host_public
from signing.chain import read_root

PEOPLE = ("root", "targets")
"""The roles whose keys people hold."""


@click.group("trust", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show, pin or change the trust root: the keys whose signatures count.

    \b
    Example:
      appliance trust show --workspace ~/appliance-workspace
    """


@command.command("show")
@trust_option
@prefix_option
@named_workspace_option
@json_option
@pass_terminal
def show(terminal: Terminal, trust: Path | None, prefix: Path | None, workspace: Path | None, as_json: bool) -> None:
    """Show the keys, thresholds and fingerprints of the trust root.

    \b
    Example:
      appliance trust show --prefix /srv/appliance
    """
    host = Prefix.at(prefix or Path("/"))
    root = read_root(choose_root(trust, host, workspace), "root.json")
    own = host_public(host.trust)
    roles = {
        name: {"threshold": role.threshold, "fingerprints": sorted(key.fingerprint for key in role.keys.values())}
        for name, role in root.roles.items()
    }
    if root.profile:
        terminal.development()
    if as_json:
        terminal.answer_json(
            {
                "version": root.version,
                "issued": root.issued,
                "expires": root.expires,
                "profile": root.profile,
                "roles": roles,
                "host_key": own.fingerprint if own else None,
            }
        )
        return
    terminal.answer(f"root version {root.version}, issued {root.issued}, expires {root.expires}")
    rows = [
        (name, f"{role.threshold} of {len(role.keys)}", key.fingerprint)
        for name, role in root.roles.items()
        for key in role.keys.values()
    ]
    terminal.table(("role", "signatures", "fingerprint"), rows)
    if own is not None:
        terminal.answer(f"this host's own key, for evidence and receipts: {own.fingerprint}")


@command.command("pin")
@click.argument("root", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--fingerprint",
    "fingerprints",
    metavar="SHA256",
    multiple=True,
    required=True,
    help="A root key's fingerprint, from paper; as many as must sign. May be given several times.",
)
@prefix_option
@pass_terminal
def pin(terminal: Terminal, root: Path, fingerprints: tuple[str, ...], prefix: Path | None) -> None:
    """Decide to trust a root on this host.

    ROOT is a root file. The fingerprints must not come from the same stick: a key holder reads them from paper. Give as
    many fingerprints as the root needs signatures; all must be keys of it.

    \b
    Example:
      appliance trust pin root.json --fingerprint 3f…e1 --prefix /srv/appliance
    """
    is_new = pin_root(Prefix.at(prefix or Path("/")), root, fingerprints)
    terminal.message("pinned this root" if is_new else "this root was pinned already")
    found = read_root(root.read_bytes(), str(root))
    people = ", ".join(f"{name} {found.roles[name].threshold} of {len(found.roles[name].keys)}" for name in PEOPLE)
    if found.profile:
        terminal.development()
    terminal.message(
        f"version {found.version}, {found.profile or 'production'}: {people} must sign; expires {found.expires}"
    )


command.add_command(sheet)
command.add_command(rotate)
command.add_command(revoke)
command.add_command(override)
