"""`appliance bundle`: carry a bundle through a registry."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.builder.registry.client import Registry
from appliance.builder.registry.credentials import read_credentials
from appliance.builder.registry.pull import import_bundle
from appliance.builder.registry.push import export_bundle
from appliance.builder.registry.reference import parse_reference
from appliance.cli.bundle_argument import open_named_bundle
from appliance.cli.console.options import json_option, named_workspace_option, pass_terminal, trust_option
from appliance.cli.console.terminal import Terminal
from appliance.host.layout.prefix import Prefix
from appliance.host.trust.metadata_store import judge
from appliance.host.trust.root_choice import choose_root
from bundles.medium_check import check_medium
from bundles.oci.layout import Layout
from bundles.report import format_size
from signing.errors import UsageError

credentials_option = click.option(
    "--credentials",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The login for the registry, as `skopeo login --authfile FILE` writes it; readable by its owner only.",
)


@click.group("bundle", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Carry a bundle through a registry.

    For sites that have an OCI registry on one side of the gap or on both.

    \b
    Example:
      appliance bundle export dist/smollm2-1.0.0 registry.example/models/smollm2
    """


@command.command("export")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("registry")
@credentials_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def export(
    terminal: Terminal,
    bundle: Path,
    registry: str,
    credentials: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Send BUNDLE to REGISTRY.

    REGISTRY is written HOST/NAME[:TAG]; without a tag, the bundle's version is the tag. The bundle's signatures are
    verified first. Only blobs that the registry lacks are sent, so an interrupted export continues where it stopped.
    Metadata, signatures and BOOT go as a second artifact that refers to the bundle. Plain http is for a registry on
    this machine alone.

    \b
    Example:
      appliance bundle export dist/smollm2-1.0.0 registry.example/models/smollm2 --credentials ~/auth.json
    """
    place = parse_reference(registry)
    found = open_named_bundle(bundle, trust, None, workspace, terminal.message)
    check_medium(Layout(bundle), (found,))  # all of it goes into the registry
    place = place.with_tag(found.value.contents.version)
    login = read_credentials(credentials, place.host) if credentials else None
    if found.evidence.is_development:
        terminal.development()
    with Registry(place, login, pushes=True) as connection, terminal.progress() as on_progress:
        done = export_bundle(Layout(bundle), found.value, connection, on_progress)
    if as_json:
        sent = {"blobs": done.blobs, "sent": done.sent, "sent_bytes": done.sent_bytes, "evidence": done.evidence}
        terminal.answer_json({"registry": str(place), "manifest": found.value.manifest, **sent})
        return
    terminal.answer(f"{found.value.label}  manifest {found.value.manifest}")
    terminal.answer(f"sent {done.sent} of {done.blobs} blobs, {format_size(done.sent_bytes)}, to {place}")


@command.command("import")
@click.argument("registry")
@click.argument("destination", type=click.Path(path_type=Path))
@credentials_option
@trust_option
@named_workspace_option
@json_option
@pass_terminal
def import_(
    terminal: Terminal,
    registry: str,
    destination: Path,
    credentials: Path | None,
    trust: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Fetch the bundle at REGISTRY into the new folder DESTINATION, and verify all of it.

    REGISTRY is written HOST/NAME:TAG. Nothing that the registry sends is trusted: the chain of trust is checked before
    the large files are fetched, and each blob before it is written. An interrupted import continues where it stopped.

    \b
    Example:
      appliance bundle import registry.example/models/smollm2:1.0.0 /srv/smollm2-1.0.0 --trust root.json
    """
    place = parse_reference(registry)
    if not place.tag:
        raise UsageError("registry.reference", registry, expected="HOST/NAME:TAG", found="no tag")
    host = Prefix.at(Path("/"))
    root = choose_root(trust, host, workspace)
    login = read_credentials(credentials, place.host) if credentials else None
    with Registry(place, login) as connection, terminal.progress() as on_progress:
        done = import_bundle(connection, destination, root, clock.utc_now(), on_progress)
    judged = judge(done.path, root, clock.utc_now(), host)
    for notice in judged.notices:
        terminal.message(f"notice: {notice}")
    if done.bundle.evidence.is_development:
        terminal.development()
    bundle = done.bundle.value
    if as_json:
        fetched = {"bundle": str(done.path), "fetched": done.fetched, "fetched_bytes": done.fetched_bytes}
        terminal.answer_json({"registry": str(place), "manifest": bundle.manifest, **fetched})
        return
    terminal.answer(f"{bundle.label}  manifest {bundle.manifest}")
    terminal.answer(f"fetched {done.fetched} blobs, {format_size(done.fetched_bytes)}, into {done.path}: as signed")
